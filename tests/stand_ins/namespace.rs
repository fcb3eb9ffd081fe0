//! The default addresses, unchanged, in a network and a mount namespace of our own.

use std::process::Command;

use wandb_cred::provider::cloud::{aws, azure, gcp};

use crate::clouds::{Cloud, context, fetch, judge};

#[test]
#[ignore = "needs scripts/setup-tests stand-ins, iproute2 and the right to make namespaces"]
fn default_addresses_work_and_dns_cannot_lead_elsewhere() {
    let may = Command::new("unshare").args(["--net", "--mount", "true"]).output();
    if !may.is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: this user may not make network and mount namespaces");
        return;
    }
    let script = r#"set -e
        ip link set lo up
        for address in 169.254.169.254 169.254.170.2 203.0.113.7; do ip addr add $address/32 dev lo; done
        mount -t tmpfs tmpfs /var/opt
        mount -t tmpfs tmpfs /run
        mkdir -p /var/opt/azcmagent/tokens
        printf arc-key-file-content >/var/opt/azcmagent/tokens/proof.key
        printf '127.0.0.1 localhost\n169.254.169.254 metadata.google.internal\n203.0.113.7 evil.internal\n169.254.169.254 mixed.internal\n203.0.113.7 mixed.internal\n' >/var/opt/hosts
        mount --bind /var/opt/hosts /etc/hosts
        exec "$0" --exact namespace::inside_the_namespace --ignored --nocapture"#;
    let output = Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c", script])
        .arg(std::env::current_exe().expect("this program"))
        .env("WANDB_CRED_TEST_NAMESPACE", "yes")
        .output()
        .expect("unshare runs");
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    assert!(said.contains("all of them"), "{said}");
}

#[tokio::test]
#[ignore = "the inner half of the test above"]
async fn inside_the_namespace() {
    if std::env::var("WANDB_CRED_TEST_NAMESPACE").is_err() {
        return;
    }
    let cloud = Cloud::at("169.254.169.254", 80);
    let agent = Cloud::at("169.254.170.2", 80);
    let public = Cloud::at("203.0.113.7", 80);
    let dir = tempfile::tempdir().expect("temp dir");
    let home = dir.path().display().to_string();

    fetch("gcp", "", &[]).await.expect("metadata.google.internal");
    gcp::probe(&context(&[])).await.expect("Google");
    cloud.recorded();

    // mTLS: google-auth accepts the stand-in's; then nothing of ours goes to the plain port.
    let strict = [("GCE_METADATA_MTLS_MODE", "strict")];
    assert!(
        fetch("gcp", "", &strict).await.expect_err("no files").to_string().contains("/run/google-mds-mtls")
    );
    let secure = Cloud::spawn(&["169.254.169.254", "443", "/run/google-mds-mtls"]);
    judge(&["gcp"], &strict);
    fetch("gcp", "", &strict).await.expect("by mTLS");
    fetch("gcp", "mtls = \"default\"", &[]).await.expect("by mTLS, since it is there");
    assert!(cloud.recorded().is_empty(), "plain http was used");
    let stranger = std::fs::read("/run/google-mds-mtls/root.crt").expect("readable");
    drop(secure);
    let _another = Cloud::spawn(&["169.254.169.254", "443", "/run/google-mds-mtls"]);
    std::fs::write("/run/google-mds-mtls/root.crt", stranger).expect("written");
    let error = fetch("gcp", "", &strict).await.expect_err("a server of another authority");
    assert!(error.to_string().contains("certificate"), "{error}");
    assert!(cloud.recorded().is_empty(), "plain http was used");
    fetch("gcp", "mtls = \"default\"", &[]).await.expect("plain http, when mTLS fails");

    fetch("azure", "", &[]).await.expect("Azure's metadata service");
    azure::probe(&context(&[])).await.expect("Azure");
    let local = Cloud::start();
    let arc = format!("{}/arc", local.url());
    let arc = [("IDENTITY_ENDPOINT", arc.as_str()), ("IMDS_ENDPOINT", local.url())];
    fetch("azure", "client-id = \"c\"", &arc).await.expect("the Arc agent, with its key");

    let sts = [("AWS_ENDPOINT_URL_STS", local.url()), ("HOME", home.as_str())];
    fetch("aws", "", &sts).await.expect("the instance role, its region too");
    aws::probe(&context(&[])).await.expect("AWS");
    let ecs = [("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v1/credentials"), ("AWS_REGION", "eu-west-1")];
    let ecs = [ecs.as_slice(), &sts, &[("AWS_CONTAINER_AUTHORIZATION_TOKEN", "agent-token")]].concat();
    fetch("aws", "", &ecs).await.expect("the ECS agent");
    assert_eq!(agent.recorded().len(), 1);
    cloud.recorded();

    // Names that lead to a public address, alone or among others.
    for host in ["evil.internal", "mixed.internal"] {
        let url = format!("http://{host}");
        for (kind, vars) in [
            ("gcp", vec![("GCE_METADATA_HOST", host)]),
            ("azure", vec![("AZURE_POD_IDENTITY_AUTHORITY_HOST", url.as_str())]),
            ("azure", vec![("IDENTITY_ENDPOINT", url.as_str()), ("IDENTITY_HEADER", "planted")]),
            ("aws", vec![("AWS_EC2_METADATA_SERVICE_ENDPOINT", url.as_str()), sts[0], sts[1]]),
            ("aws", vec![("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str()), sts[0], sts[1]]),
        ] {
            let error = fetch(kind, "", &vars).await.expect_err(host);
            assert!(!error.to_string().contains("planted"), "{error}");
        }
    }
    let unjudged = public.recorded();
    assert!(unjudged.is_empty() && cloud.recorded().is_empty(), "{unjudged:?}");
    println!("all of them");
}
