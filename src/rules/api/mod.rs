//! What a script sees: `message`, `env`, `ctx`, `session` and their members.
