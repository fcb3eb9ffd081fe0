//! A blocking HTTP client for the daemon socket, small enough for shell prompts.
