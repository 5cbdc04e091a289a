//! The frame of a self-contained page.

use maud::{DOCTYPE, Markup, PreEscaped, html};

/// Returns a self-contained page with style and script.
pub(crate) fn render(title: &str, header: &Markup, main: &Markup, footer: &str) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · Podium" }
                style { (PreEscaped(include_str!("style.css"))) }
            }
            body {
                (header)
                main { (main) }
                footer { "Written by podium " (env!("CARGO_PKG_VERSION")) ". " (footer) }
                script { (PreEscaped(include_str!("hover.js"))) }
            }
        }
    }
}
