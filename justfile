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

# Measure the budgets of docs/performance.md (3 minutes after the release builds)
bench:
    scripts/bench

# Runs that outlive five whole access-token lifetimes (about half an hour)
endurance:
    scripts/endurance

# Build what is packaged: a static command and the daemon, with separate debug files
package:
    scripts/package

# Make every artefact of a version in dist/ (docs/releasing.md)
release version:
    scripts/release {{version}}

# Type-check for macOS on Debian
check-macos:
    scripts/check-macos

# Build the pages as a site in target/site/html, and check its links
docs:
    scripts/docs

# Draw the README's picture anew
picture:
    scripts/terminal-svg
