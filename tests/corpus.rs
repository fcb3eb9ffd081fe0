//! Every file of `fuzz/corpus` through the function that fuzzes it, as it is and grown to full size: one file, one test.
//! `scripts/fuzz` looks for more of them.

use std::path::Path;

use libtest_mimic::{Arguments, Trial};

#[path = "../fuzz/src/lib.rs"]
#[expect(unreachable_pub, dead_code, reason = "the library of a crate of its own")]
mod fuzz;

fn main() {
    let mut trials = Vec::new();
    for target in fuzz::TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target.name);
        let files =
            std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for file in files {
            let path = file.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            trials.push(Trial::test(format!("{}/{name}", target.name), move || {
                fuzz::replay(target.name, &std::fs::read(&path)?);
                Ok(())
            }));
        }
    }
    trials.sort_by(|a, b| a.name().cmp(b.name()));
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}
