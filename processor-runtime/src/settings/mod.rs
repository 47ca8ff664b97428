//! The settings of an application, from four places: code, file, environment, command line.
//!
//! [`table`] is the only list of settings. Everything else follows from it: the options of the command line, the names
//! of variables, the keys of the file, what `config` lists and docs/configuration.md. Each place is stronger than the one
//! before, and for every value it is known which place it came from. What is not in the table is refused.

mod command_line;
mod document;
mod environment;
mod file;
mod kind;
mod nearest;
mod origin;
mod report;
mod resolve;
pub mod table;

pub use self::command_line::{CommandLine, Connection};
pub use self::document::markdown;
pub use self::environment::Environment;
pub use self::kind::{Bounds, Choice, Field, Kind};
pub use self::origin::Origin;
pub use self::resolve::{Entry, Places, Settings, SettingsError, resolve, resolve_without};
pub use self::table::Setting;
