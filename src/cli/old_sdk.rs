//! Finds an SDK that knows no identity federation, in a virtual environment's list of packages: no Python is started.

use crate::env::Env;

/// What to say to somebody whose SDK is too old for the SDK files.
pub(super) fn hint(env: &Env) -> Option<String> {
    let folder = ["VIRTUAL_ENV", "CONDA_PREFIX"].iter().find_map(|name| env.path(name))?.join("lib");
    let pythons = std::fs::read_dir(folder).ok()?.flatten();
    let version = pythons
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("python3"))
        .filter_map(|entry| std::fs::read_dir(entry.path().join("site-packages")).ok())
        .flat_map(|packages| packages.flatten())
        .find_map(|package| version_of(&package.file_name().to_string_lossy()))?;
    is_old(&version).then(|| {
        format!(
            "wandb-cred: wandb {version} of this environment needs an API key, and gets one from wandb-cred exec --proxy"
        )
    })
}

/// `wandb-0.17.9.dist-info`.
fn version_of(package: &str) -> Option<String> {
    package.strip_prefix("wandb-")?.strip_suffix(".dist-info").map(str::to_owned)
}

fn is_old(version: &str) -> bool {
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().ok());
    let mut next = || numbers.next().flatten();
    match (next(), next(), next()) {
        (Some(major), Some(minor), Some(patch)) => (major, minor, patch) < FIRST_WITH_FEDERATION,
        // A version of an unknown form is a new one.
        _ => false,
    }
}

const FIRST_WITH_FEDERATION: (u32, u32, u32) = (0, 19, 11);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_sdk_without_federation_is_worth_a_word() {
        let temp = tempfile::tempdir().expect("temp dir");
        let packages = temp.path().join("lib/python3.11/site-packages");
        let env = Env::fixed([("VIRTUAL_ENV", temp.path().to_str().expect("text"))]);
        assert_eq!(hint(&env), None, "no environment");
        std::fs::create_dir_all(packages.join("weave-0.1.0.dist-info")).expect("made");
        assert_eq!(hint(&env), None, "no SDK");
        for (version, old) in
            [("0.19.10", true), ("0.12.21", true), ("0.19.11", false), ("0.31.0", false), ("1.0.0rc1", false)]
        {
            let package = packages.join(format!("wandb-{version}.dist-info"));
            std::fs::create_dir(&package).expect("made");
            assert_eq!(hint(&env).is_some(), old, "{version}");
            std::fs::remove_dir(&package).expect("removed");
        }
        assert_eq!(hint(&Env::fixed([("HOME", "/")])), None);
    }
}
