//! What may stay in `postgresql.auto.conf`. Pure.
//!
//! `ALTER SYSTEM` of users is kept. A line there overrides `postgresql.conf`, so the manager's own settings are removed
//! before every start: those that a restore wrote for its recovery, and those of the cluster that this one was copied
//! from.

use super::postgresql::is_owned;

/// The text without the manager's own settings.
pub fn without_owned(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let name = line.trim_start();
        let end = name.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(name.len());
        if !is_owned(&name[..end]) {
            kept.push_str(line);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_settings_stay_and_ours_are_removed() {
        assert_eq!(
            without_owned(
                "# Do not edit\nwork_mem = '8MB'\nrestore_command = 'x'\n recovery_target_time='y'\nArchive_Mode = off\nmax_connections = 5"
            ),
            "# Do not edit\nwork_mem = '8MB'\nmax_connections = 5"
        );
    }
}
