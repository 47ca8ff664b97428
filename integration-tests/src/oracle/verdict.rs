//! What an oracle found: counts, the first few violations, and one sentence for people.

use std::fmt;

/// Violations that are described; all of them are counted.
const VIOLATIONS_DESCRIBED_MAX: usize = 8;

/// How a record violates exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An effect that is missing.
    Lost,
    /// An effect that is there more than once.
    Doubled,
    /// An effect with the wrong content, or without a cause.
    Wrong,
    /// An effect that is there once, but not in the order of its cause.
    Reordered,
    /// A transaction of which only a part is visible.
    Torn,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Doubled => "doubled",
            Self::Wrong => "wrong",
            Self::Reordered => "out of order",
            Self::Torn => "torn",
        }
    }
}

/// One violation, described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// How it violates.
    pub kind: Kind,
    /// Where: `partition@offset`, or an account.
    pub place: String,
    /// What should be there.
    pub expected: String,
    /// What is there.
    pub found: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}: expected {}, found {}", self.kind.word(), self.place, self.expected, self.found)
    }
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a verdict that nobody looks at proves nothing"]
pub struct Verdict {
    /// What went in and what came out, such as `readings` and `averages`.
    pub nouns: (&'static str, &'static str),
    /// How many went in.
    pub inputs: u64,
    /// How many came out.
    pub outputs: u64,
    /// Inputs without an output.
    pub lost: u64,
    /// Outputs beyond the first of their input.
    pub doubled: u64,
    /// Outputs with the wrong content or without an input.
    pub wrong: u64,
    /// Outputs that do not stand where their input stands.
    pub reordered: u64,
    /// Batches that are not there as a whole.
    pub torn: u64,
    /// The first violations, described.
    pub violations: Vec<Violation>,
}

impl Verdict {
    /// A verdict with nothing counted yet.
    pub fn new(input: &'static str, output: &'static str) -> Self {
        Self {
            nouns: (input, output),
            inputs: 0,
            outputs: 0,
            lost: 0,
            doubled: 0,
            wrong: 0,
            reordered: 0,
            torn: 0,
            violations: Vec::new(),
        }
    }

    /// Whether nothing is wrong.
    pub fn is_ok(&self) -> bool {
        self.lost + self.doubled + self.wrong + self.reordered + self.torn == 0
    }

    /// # Panics
    /// Something is wrong; the message is the verdict.
    pub fn assert_ok(&self) {
        assert!(self.is_ok(), "{self}");
    }

    /// Adds what another check of the same kind found.
    pub fn absorb(&mut self, other: Self) {
        self.inputs += other.inputs;
        self.outputs += other.outputs;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.wrong += other.wrong;
        self.reordered += other.reordered;
        self.torn += other.torn;
        let room = VIOLATIONS_DESCRIBED_MAX.saturating_sub(self.violations.len());
        self.violations.extend(other.violations.into_iter().take(room));
    }

    /// Counts a violation and describes it, if there is still room; `describe` gives what was expected and what was
    /// found.
    pub(super) fn violate(
        &mut self,
        kind: Kind,
        place: impl fmt::Display,
        describe: impl FnOnce() -> (String, String),
    ) {
        match kind {
            Kind::Lost => self.lost += 1,
            Kind::Doubled => self.doubled += 1,
            Kind::Wrong => self.wrong += 1,
            Kind::Reordered => self.reordered += 1,
            Kind::Torn => self.torn += 1,
        }
        if self.violations.len() < VIOLATIONS_DESCRIBED_MAX {
            let (expected, found) = describe();
            self.violations.push(Violation { kind, place: place.to_string(), expected, found });
        }
    }
}

impl fmt::Display for Verdict {
    /// `200,000 readings in, 200,000 averages out, 0 lost, 0 doubled, 0 wrong`, then what else there is, a violation a
    /// line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (input, output) = self.nouns;
        write!(f, "{} {input} in, {} {output} out", grouped(self.inputs), grouped(self.outputs))?;
        for (count, kind) in [(self.lost, Kind::Lost), (self.doubled, Kind::Doubled), (self.wrong, Kind::Wrong)] {
            write!(f, ", {} {}", grouped(count), kind.word())?;
        }
        for (count, kind) in [(self.reordered, Kind::Reordered), (self.torn, Kind::Torn)] {
            if count > 0 {
                write!(f, ", {} {}", grouped(count), kind.word())?;
            }
        }
        self.violations.iter().try_for_each(|violation| write!(f, "\n  {violation}"))
    }
}

/// A number with its thousands apart: `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
