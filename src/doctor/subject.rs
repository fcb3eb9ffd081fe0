//! The subject that W&B will see, the string to paste there, and whether it stays the same.

use super::Context;
use super::report::{Report, Step};
use crate::error::Exit;
use crate::provider::local::known_variables;
use crate::token::Claims;

pub(super) fn check(cx: &Context<'_>, claims: &Claims, report: &mut Report) {
    let Some(subject) = claims.subject() else {
        let found = "the JWT has no `sub`, no `email` and no claim with \"email\" in its name";
        report.fail(
            Step::Subject,
            Exit::Configuration,
            found,
            "have the issuer put a subject in: W&B cannot tell who you are",
        );
        report.skip(&[Step::StableSubject], "needs a subject");
        return;
    };
    let claim = match (&claims.sub, &claims.email) {
        (Some(_), _) => "sub",
        (None, Some(_)) => "email",
        (None, None) => "a claim with \"email\" in its name",
    };
    let mut found = format!("W&B sees {subject:?} (from {claim})");
    let email = claims.email.as_deref().filter(|email| Some(*email) != claims.sub.as_deref());
    if let Some(email) = email {
        found += &format!("; `email` is {email:?}");
    }
    if is_entra(claims) {
        found +=
            "; on Entra ID this is the Object ID of the Enterprise Application, not of the App registration";
    }
    if let Some(pitfall) = pitfall(subject) {
        let remedy = format!(
            "W&B compares it exactly: for a service account paste {subject:?} without the quotes, {pitfall} included"
        );
        report.warn(Step::Subject, format!("{found}; it has {pitfall}"), remedy);
    } else {
        let paste = if subject.contains('@') && !subject.contains(':') {
            "; it must be the email of a W&B user, or a service account's Subject"
        } else {
            "; paste it as the Subject of a service account (Settings > Service accounts), exactly as it is"
        };
        report.ok(Step::Subject, found + paste);
    }
    match unstable(claims.iss.as_deref().unwrap_or_default(), subject) {
        None => report.ok(Step::StableSubject, "nothing in it is known to change from run to run"),
        Some((changes, remedy)) => {
            let found =
                format!("it changes with {changes}, and a service account's Subject is one exact string");
            report.warn(Step::StableSubject, found, remedy.replace("ORG_NAME", cx.audience.unwrap_or("ORG")));
        }
    }
}

fn is_entra(claims: &Claims) -> bool {
    let issuer = claims.iss.as_deref().unwrap_or_default();
    issuer.starts_with("https://sts.windows.net/") || issuer.starts_with("https://login.microsoftonline.com/")
}

/// What is easily lost when the subject is typed or copied.
fn pitfall(subject: &str) -> Option<&'static str> {
    if subject.trim() != subject {
        Some("white space at its start or end")
    } else if subject.chars().any(|c| c.is_control() || (!c.is_ascii() && c.is_whitespace())) {
        Some("invisible characters")
    } else if subject.contains('@') && subject.chars().any(char::is_uppercase) {
        Some("capital letters")
    } else {
        None
    }
}

/// What the subject changes with, and how to keep it the same.
fn unstable(issuer: &str, subject: &str) -> Option<(&'static str, String)> {
    let has = |part: &str| subject.split([':', '/']).any(|piece| piece == part);
    if subject.starts_with("repo:") || issuer.contains("token.actions.githubusercontent.com") {
        let repository = subject.strip_prefix("repo:")?.split(':').next().unwrap_or("OWNER/REPO");
        let changes = match () {
            () if RUN_CLAIMS.iter().any(|claim| has(claim)) => "every run",
            () if has("environment") => return None,
            () if has("ref") => "the branch or tag",
            () if has("pull_request") => "the event: it stands for every pull request, and for nothing else",
            () => return None,
        };
        let remedy = format!(
            "give the job an `environment:` (the subject is then repo:{repository}:environment:NAME), or: gh api -X PUT \
             repos/{repository}/actions/oidc/customization/sub -F use_default=false -f 'include_claim_keys[]=repo'"
        );
        return Some((changes, remedy));
    }
    if subject.starts_with("organization:") && has("pipeline") && (has("commit") || has("ref")) {
        let remedy = "ask for a fixed subject: buildkite-agent oidc request-token --subject-claim pipeline_id \
                      --audience ORG_NAME, in a command provider";
        return Some(("every commit, branch and step", remedy.to_owned()));
    }
    if subject.starts_with("project_path:") && (has("ref") || has("ref_type")) {
        let remedy = "leave the branch out (GitLab 17.10 and later): glab api -X PUT projects/ID -f \
                      'ci_id_token_sub_claim_components[]=project_path'";
        return Some(("the branch or tag", remedy.to_owned()));
    }
    if subject.starts_with("org/") && has("project") && has("user") {
        let remedy = "CircleCI puts in who triggered the job (and in its newer tokens the branch): trigger from one \
                      account, or give W&B a Subject for each";
        return Some(("the person who triggers the job", remedy.to_owned()));
    }
    if subject.starts_with("organization:") && has("run_phase") {
        let remedy = "HCP Terraform puts the phase in: give W&B a Subject for `plan` and one for `apply`";
        return Some(("the phase of the run", remedy.to_owned()));
    }
    if let Some((changes, platform)) = known_variables::unmatched(issuer) {
        let remedy = format!(
            "W&B cannot match the subjects of {platform}: use another identity there, such as a cloud account's \
             (client-credentials, or gcp with service-account)"
        );
        return Some((changes, remedy));
    }
    if subject.starts_with("org:") && has("repo") && has("ref_type") {
        return Some((
            "the branch or tag",
            "Semaphore puts the branch in: give W&B a Subject for each".to_owned(),
        ));
    }
    None
}

/// Claims that differ from run to run, where an organization or repository has put them into GitHub's subject.
const RUN_CLAIMS: [&str; 6] = ["run_id", "run_number", "run_attempt", "sha", "actor", "job_workflow_sha"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_that_change_are_recognised() {
        for (subject, changes) in [
            ("repo:o/r:ref:refs/heads/main", Some("branch")),
            ("repo:o/r:pull_request", Some("pull request")),
            ("repo:o/r:environment:prod", None),
            ("repo:o/r", None),
            ("repo:o/r:environment:prod:run_id:17", Some("every run")),
            ("organization:o:pipeline:p:ref:refs/heads/main:commit:abc:step:x", Some("commit")),
            ("0184990a-477b-4fa8-9968-496074483cee", None),
            ("project_path:g/p:ref_type:branch:ref:main", Some("branch")),
            ("project_path:g/p", None),
            ("org/1/project/2/user/3", Some("triggers")),
            ("organization:o:project:p:workspace:w:run_phase:plan", Some("phase")),
            ("org:acme:project:1:repo:web:ref_type:branch:ref:refs/heads/main", Some("branch")),
            ("system:serviceaccount:ns:name", None),
            ("arn:aws:iam::123456789012:role/train", None),
            ("spiffe://td.example/ns/ref", None),
            ("ada@example.com", None),
        ] {
            // Bitbucket's and Modal's subjects are known by their issuers (`known_variables`).
            let found = unstable("https://issuer.example", subject).map(|(changes, _)| changes);
            match changes {
                None => assert_eq!(found, None, "{subject}"),
                Some(word) => {
                    assert!(found.is_some_and(|found| found.contains(word)), "{subject}: {found:?}");
                }
            }
        }
    }

    #[test]
    fn what_w_and_b_cannot_match_has_a_remedy() {
        let (changes, remedy) = unstable("https://oidc.fly.io/acme", "acme:train:48e").expect("it changes");
        assert!(changes.contains("machine") && remedy.contains("W&B cannot match"), "{remedy}");
    }

    #[test]
    fn pitfalls_are_found() {
        assert_eq!(pitfall("svc"), None);
        assert_eq!(pitfall("0oa1B2C3"), None, "client ids have capitals, and are no addresses");
        assert!(
            pitfall("svc ").is_some() && pitfall("a\u{a0}b").is_some() && pitfall("Ada@x.example").is_some()
        );
    }
}
