//! `env`: a JWT in an environment variable.
