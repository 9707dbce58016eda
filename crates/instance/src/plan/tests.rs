#![expect(clippy::unwrap_used, reason = "a test that fails here has found what it looks for")]
