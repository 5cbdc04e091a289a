//! Prints docs/reference/commands.md; `make commands` writes it.

fn main() -> anyhow::Result<()> {
    print!("{}", podium_tests::commands::page()?);
    Ok(())
}
