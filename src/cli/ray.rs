//! The runtime environment with which Ray's workers have credentials: each is started by `exec`.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::command_error::CommandError;
use super::profile::ProfilesArg;
use super::shell::Shell;
use crate::env::Env;
use crate::error::Exit;

/// What `ray.init(runtime_env=...)` and `ray job submit --runtime-env-json` take, as JSON.
pub(super) fn runtime_env(profiles: &ProfilesArg, proxy: bool, env: &Env) -> Result<String, CommandError> {
    let own = std::env::current_exe()
        .map_err(|error| CommandError::new(Exit::System, format!("cannot find this program: {error}")))?;
    let mut words = vec![text(&own)?, "exec".to_owned()];
    words.extend(profiles.given().iter().flat_map(|name| ["--profile".to_owned(), name.clone()]));
    words.extend(proxy.then(|| "--proxy".to_owned()));
    // By its path: a worker's PATH may have another one, with other packages.
    words.extend(["--".to_owned(), text(&python(env)?)?]);
    // Ray hands the line to a shell (ray/_private/runtime_env/context.py).
    let line: Vec<_> = words.iter().map(|word| Shell::Sh.quote(word)).collect();
    let mut runtime_env = serde_json::json!({ "py_executable": line.join(" ") });
    if let Some(config) = env.var("WANDB_CRED_CONFIG") {
        runtime_env["env_vars"] = serde_json::json!({ "WANDB_CRED_CONFIG": config });
    }
    Ok(format!("{runtime_env}\n"))
}

/// The interpreter that the shell would run.
fn python(env: &Env) -> Result<PathBuf, CommandError> {
    let path = env.path("PATH").unwrap_or_default();
    let runs = |path: &PathBuf| {
        path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    let found = ["python", "python3"].into_iter().find_map(|name| {
        std::env::split_paths(&path)
            .map(|folder| folder.join(name))
            .find(|path| path.is_absolute() && runs(path))
    });
    found.ok_or_else(|| {
        CommandError::new(Exit::Configuration, "Ray's workers need a Python, and there is none in PATH")
            .hint("activate the environment that Ray's workers use, then run this again")
    })
}

fn text(path: &Path) -> Result<String, CommandError> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        CommandError::new(Exit::Configuration, format!("the path {} is not Unicode", path.display()))
    })
}
