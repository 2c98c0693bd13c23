//! The command `antiphon`: arguments in, exit code out. What it does is in the library; how it says it is in `cli`.

mod cli;

fn main() -> std::process::ExitCode {
    antiphon_host::child::serve_if_asked();
    cli::main()
}
