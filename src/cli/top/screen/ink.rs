//! Letters and colours: what says the same with and without colour, in Unicode and in
//! ASCII, and never outside its place. It does not know what is said.

use std::borrow::Cow;

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::{Color, Modifier, Style},
    text::Span,
};

use crate::cli::plot;

/// What a terminal is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli::top) struct Ink {
    coloured: bool,
    unicode: bool,
}

impl Ink {
    pub(in crate::cli::top) fn of_process() -> Self {
        Self {
            coloured: plot::coloured(),
            unicode: plot::unicode_of_process(),
        }
    }

    /// For a script, or a file.
    pub(in crate::cli::top) fn plain_text() -> Self {
        Self {
            coloured: false,
            ..Self::of_process()
        }
    }

    #[cfg(test)]
    pub(in crate::cli::top) fn new(coloured: bool, unicode: bool) -> Self {
        Self { coloured, unicode }
    }

    pub(super) fn unicode(self) -> bool {
        self.unicode
    }

    pub(super) fn plain(self) -> Style {
        Style::new()
    }

    pub(super) fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    pub(super) fn dim(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    pub(super) fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    pub(super) fn good(self) -> Style {
        self.colour(Color::Green)
    }

    pub(super) fn warn(self) -> Style {
        self.colour(Color::Yellow)
    }

    pub(super) fn bad(self) -> Style {
        self.colour(Color::Red).add_modifier(Modifier::BOLD)
    }

    pub(super) fn colour(self, colour: Color) -> Style {
        match self.coloured {
            true => Style::new().fg(colour),
            false => Style::new(),
        }
    }

    /// Whether something serves, told without colour.
    pub(super) fn sign(self, serving: bool) -> &'static str {
        match (self.unicode, serving) {
            (true, true) => "✔",
            (true, false) => "✘",
            (false, true) => "+",
            (false, false) => "X",
        }
    }

    pub(super) fn separator(self) -> &'static str {
        match self.unicode {
            true => " · ",
            false => " - ",
        }
    }

    /// Which column the order is by.
    pub(super) fn arrow(self, reversed: bool) -> char {
        match (self.unicode, reversed) {
            (true, false) => '▼',
            (true, true) => '▲',
            (false, false) => 'v',
            (false, true) => '^',
        }
    }

    /// A cell of which so many eighths are full.
    pub(super) fn level(self, eighths: usize) -> char {
        const BLOCKS: [char; 8] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇'];
        const ASCII: [char; 8] = [' ', '.', '.', ':', ':', '|', '|', '#'];
        let (levels, full) = match self.unicode {
            true => (BLOCKS, '█'),
            false => (ASCII, '#'),
        };
        levels.get(eighths).copied().unwrap_or(full)
    }

    /// What stands for nothing in a plot, where there is a value.
    pub(super) fn zero(self) -> char {
        if self.unicode { '·' } else { '_' }
    }

    /// The full and the empty cells of a bar.
    pub(super) fn bar(self) -> [char; 2] {
        match self.unicode {
            true => ['█', '░'],
            false => ['#', '.'],
        }
    }

    /// Writes from a column of an area's first row; what does not fit is not written.
    /// Returns the column after it.
    pub(super) fn put(
        self,
        area: Rect,
        buffer: &mut Buffer,
        at: u16,
        text: &str,
        style: Style,
    ) -> u16 {
        let area = area.intersection(buffer.area);
        if area.is_empty() || at >= area.width {
            return at;
        }
        let text = self.shown(text);
        let room = usize::from(area.width - at);
        let (end, _) = buffer.set_stringn(area.x + at, area.y, text, room, style);
        end.saturating_sub(area.x)
    }

    /// The same in so many columns; what is cut ends in a sign that says so.
    pub(super) fn put_cut(
        self,
        area: Rect,
        buffer: &mut Buffer,
        at: u16,
        most: u16,
        text: &str,
        style: Style,
    ) -> u16 {
        let room = usize::from(most.min(area.width.saturating_sub(at)));
        if columns(text) <= room {
            return self.put(area, buffer, at, text, style);
        }
        let mut fits = String::new();
        let mut taken = 1;
        for letter in text.chars() {
            taken += columns(letter.encode_utf8(&mut [0; 4]));
            if taken > room {
                break;
            }
            fits.push(letter);
        }
        if room > 0 {
            fits.push(if self.unicode { '…' } else { '~' });
        }
        self.put(area, buffer, at, &fits, style)
    }

    /// Writes at the right end of an area's first row, where there is room for all of it.
    pub(super) fn put_right(self, area: Rect, buffer: &mut Buffer, text: &str, style: Style) {
        let room = usize::from(area.width).checked_sub(columns(text));
        if let Some(at) = room.and_then(|room| u16::try_from(room).ok()) {
            self.put(area, buffer, at, text, style);
        }
    }

    /// Without what the terminal cannot show.
    fn shown(self, text: &str) -> Cow<'_, str> {
        match self.unicode || text.is_ascii() {
            true => Cow::Borrowed(text),
            false => Cow::Owned(text.replace(|letter: char| !letter.is_ascii(), "?")),
        }
    }
}

/// How many columns a text takes.
pub(super) fn columns(text: &str) -> usize {
    Span::raw(text).width()
}
