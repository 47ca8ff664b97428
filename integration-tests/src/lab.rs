//! What the program `lab` can do, one module a subcommand. `./x` builds and runs it.

pub mod bench;
pub mod campaign;
pub mod demo;
pub mod kafka;
pub mod late;

pub mod group;
pub mod interrupt;
mod machine;
pub mod outputs;
pub mod program;

/// Panics of other threads than the first are caught there, and told by whoever catches them.
fn print_panics_of_the_first_thread_only() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().name() == Some("main") {
            print(panic);
        }
    }));
}
