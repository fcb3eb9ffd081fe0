# The project's commands. Each is a script that also runs without just.

# Build and run the main job with no account and no configuration
demo:
    scripts/demo

# Install what the tests need and run them all
test:
    scripts/test

# Formatting, lints and the Rust tests
quick:
    scripts/test --quick

# The budgets, side by side with the floors and the peers
bench:
    scripts/bench

# Runs that outlive five whole access-token lifetimes (about half an hour)
endurance:
    scripts/endurance

# The packaged builds: a static command, the daemon, their sizes
package:
    scripts/package

# Type-check for macOS on Debian
check-macos:
    scripts/check-macos
