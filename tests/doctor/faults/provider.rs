//! The source of identity tokens.

use serde_json::json;

use super::fails;
use crate::stand_in::answer;

#[test]
fn reports_a_token_file_that_does_not_exist() {
    fails(
        |world| world.provider = "[provider.file]\npath = \"/nonexistent/jwt\"\n".into(),
        &["provider"],
        75,
        &["/nonexistent/jwt", "ls -l"],
    );
}

#[test]
fn reports_a_program_that_does_not_exist() {
    fails(
        |world| world.provider = "[provider.command]\nargv = [\"/nonexistent/gcloud\"]\n".into(),
        &["provider"],
        78,
        &["/nonexistent/gcloud", "by hand"],
    );
}

#[test]
fn reports_a_github_job_without_permission() {
    fails(
        |world| {
            world.provider = "[provider.github-actions]\n".into();
            world.env.insert("GITHUB_ACTIONS", "true".into());
        },
        &["provider"],
        78,
        &["id-token: write"],
    );
}

#[test]
fn reports_a_gitlab_job_without_id_tokens() {
    fails(
        |world| world.provider = "[provider.gitlab]\n".into(),
        &["provider"],
        78,
        &["id_tokens", "aud: acme"],
    );
}

#[test]
fn reports_that_nobody_has_signed_in() {
    fails(
        |world| {
            let url = world.issuer.http.url.clone();
            world.provider =
                format!("[provider.oidc]\nissuer = \"{url}\"\nclient-id = \"c\"\ntoken-store = \"file\"\n");
        },
        &["provider"],
        77,
        &["wandb-cred login"],
    );
}

#[test]
fn reports_a_client_that_its_issuer_refuses() {
    fails(
        |world| {
            world.issuer.http.on("/token", answer(401, json!({ "error": "invalid_client" })));
            let url = world.issuer.http.url.clone();
            let secret = world.write("client-secret", "planted-client-secret");
            world.provider = format!(
                "[provider.client-credentials]\nissuer = \"{url}\"\nclient-id = \"c\"\nclient-secret-file = \"{secret}\"\n"
            );
        },
        &["provider"],
        78,
        &["invalid_client", "Certificates & secrets"],
    );
}
