//! HTML text, and the frame of a self-contained page.

use std::fmt::{Display, Formatter, Result, Write};

/// Displays text with all special characters of HTML escaped, for content and attributes.
pub(crate) struct Escaped<T>(pub(crate) T);

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        for letter in self.0.to_string().chars() {
            match letter {
                '&' => formatter.write_str("&amp;")?,
                '<' => formatter.write_str("&lt;")?,
                '>' => formatter.write_str("&gt;")?,
                '"' => formatter.write_str("&quot;")?,
                '\'' => formatter.write_str("&#39;")?,
                letter => formatter.write_char(letter)?,
            }
        }
        Ok(())
    }
}

/// Returns a self-contained page with style and script.
pub(crate) fn document(title: &str, header: &str, main: &str, footer: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{title} · Podium</title>\n<style>{style}</style></head>\n<body>\n{header}<main>{main}</main>\n\
         <footer>Written by podium {version}. {footer}</footer>\n\
         <script>{script}</script></body></html>\n",
        title = Escaped(title),
        style = include_str!("style.css"),
        version = env!("CARGO_PKG_VERSION"),
        script = include_str!("hover.js"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_characters_are_escaped() {
        assert_eq!(Escaped("<b a='\"'>&").to_string(), "&lt;b a=&#39;&quot;&#39;&gt;&amp;");
    }
}
