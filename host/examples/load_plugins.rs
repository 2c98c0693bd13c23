//! Loads a directory of plugins and says of each whether it works, or precisely why not.
//!
//! `cargo run --example load_plugins -- target/debug`
#![expect(clippy::print_stdout, reason = "an example that talks to people")]

use antiphon_host::Host;

#[tokio::main]
async fn main() {
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
