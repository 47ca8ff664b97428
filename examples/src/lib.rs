//! Programs people copy: see `src/bin`.

#[cfg(test)]
mod tests {
    //! The tutorial shows `moving-average` piece by piece: every line of its code is a line of the program, and none of the
    //! program's is missing.

    use std::collections::BTreeSet;

    const TUTORIAL: &str = include_str!("../../docs/tutorial.md");
    const PROGRAM: &str = include_str!("bin/moving-average.rs");

    /// The blocks of Rust code.
    fn blocks() -> impl Iterator<Item = &'static str> {
        TUTORIAL.split("```rust\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default())
    }

    #[test]
    fn the_tutorial_shows_the_program_as_it_is() {
        let program: Vec<&str> = PROGRAM.lines().collect();
        let mut shown = BTreeSet::new();
        for block in blocks() {
            let block: Vec<&str> = block.lines().collect();
            let at = program.windows(block.len()).position(|lines| lines == block);
            let at = at.unwrap_or_else(|| panic!("not in moving-average.rs as it stands here:\n{}", block.join("\n")));
            shown.extend(at..at + block.len());
        }
        let is_code = |line: &&str| !line.is_empty() && !line.starts_with("//!");
        let missing = program.iter().enumerate().filter(|(at, line)| is_code(line) && !shown.contains(at));
        let missing: Vec<&str> = missing.map(|(_, line)| *line).collect();
        assert!(missing.is_empty(), "the tutorial does not show\n{}", missing.join("\n"));
    }
}
