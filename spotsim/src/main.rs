//! The `spotsim` command. All of it is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    spotsim::cli::main(std::env::args_os()).into()
}
