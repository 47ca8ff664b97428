//! What the program `lab` can do, one module a subcommand. `./x` builds and runs it.

pub mod bench;
pub mod campaign;
pub mod demo;
pub mod kafka;
pub mod late;

pub mod group;
pub mod interrupt;
pub mod outputs;
pub mod program;
