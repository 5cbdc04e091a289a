//! Prints docs/reference/configuration.md.

fn main() {
    print!("{}", podium_config::reference::markdown());
}
