//! The name that somebody meant.

/// The known name that is nearest to a wrong one, if any is near: fewer than half of its characters differ.
pub(super) fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |name: &str| strsim::damerau_levenshtein(&wrong.to_lowercase(), &name.to_lowercase());
    let ranked = known.into_iter().map(|name| (distance(name), name)).min_by_key(|(distance, _)| *distance)?;
    (ranked.0 * 2 < ranked.1.chars().count()).then_some(ranked.1)
}

/// ` (the nearest is 'x')`, or nothing.
pub(super) fn suggestion<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(wrong, known).map_or_else(String::new, |name| format!(" (the nearest is '{name}')"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 3] = ["session.timeout", "transaction.timeout", "threads"];

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        for wrong in ["sesion.timeout", "session_timeout", "session.timeout.ms", "Session.Timeout"] {
            assert_eq!(nearest(wrong, KNOWN), Some("session.timeout"), "{wrong}");
        }
        assert_eq!(nearest("colour", KNOWN), None);
        assert_eq!(suggestion("thread", KNOWN), " (the nearest is 'threads')");
        assert_eq!(suggestion("colour", KNOWN), "");
    }
}
