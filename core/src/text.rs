//! Text that others wrote, made fit to be logged and printed.

/// At most `limit` bytes of it, with every character that would steer a terminal replaced; lines and tabs stay.
pub fn printable(text: &str, limit: usize) -> String {
    let mut end = limit.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let steers = |c: char| c.is_control() && c != '\n' && c != '\t';
    let mut shown: String =
        text[..end].chars().map(|c| if steers(c) || is_reordering(c) { '\u{fffd}' } else { c }).collect();
    if end < text.len() {
        shown.push_str("\n… (cut)");
    }
    shown
}

/// Marks that make a line read in another order than it is written (Unicode Annex 9).
fn is_reordering(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn nothing_steers_a_terminal_and_lines_stay() {
        let shown = printable("a\n\tb\x1b[31m\r\u{202e}ü", 100);
        assert_eq!(shown, "a\n\tb\u{fffd}[31m\u{fffd}\u{fffd}ü");
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(printable("üü", 3), "ü\n… (cut)");
        assert_eq!(printable("üü", 4), "üü");
    }
}
