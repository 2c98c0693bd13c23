//! Loads a directory of plugins and says of each whether it works, or precisely why not.
//!
//! `cargo run --example load_plugins -- target/debug`
#![expect(clippy::print_stdout, reason = "an example that talks to people")]

use antiphon_host::Host;

fn main() {
    // Plugins are tried in child processes, which are this program, started again.
    antiphon_host::child::serve_if_asked();
    run();
}

#[tokio::main]
async fn run() {
    let directory = std::env::args().nth(1).unwrap_or_else(|| "target/debug".into());

    let host = Host::builder().plugin_dir(directory).start().await;
    for plugin in host.plugins() {
        match &plugin.error {
            None => println!("{} {} works", plugin.name, plugin.version()),
            Some(error) => println!("{} {error}", plugin.path.display()),
        }
    }
    host.shutdown().await;
}
