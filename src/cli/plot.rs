//! A series of values as a line of blocks, one row high, and a part of a whole as
//! a bar. It does not know what the values are.

use std::{
    env,
    io::{self, IsTerminal},
};

/// Levels from the least to the most.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const ASCII: [char; 8] = ['.', ':', '-', '=', '+', '*', '#', '@'];

/// The full and the empty cells of a bar.
const BAR: [char; 2] = ['█', '░'];
const ASCII_BAR: [char; 2] = ['#', '.'];

/// What goes before and after a bar on a terminal that shows colours: green.
const COLOUR: [&str; 2] = ["\u{1b}[32m", "\u{1b}[0m"];

/// The width where there is no terminal.
const WIDTH: usize = 80;

/// How to draw.
#[derive(Clone, Copy, Debug)]
pub(super) struct Canvas {
    width: usize,
    levels: [char; 8],
    cells: [char; 2],
    coloured: bool,
}

impl Canvas {
    /// What this process writes to: as wide as its terminal, and in ASCII where
    /// the locale is not UTF-8 or the terminal is dumb. In colours only on a
    /// terminal, and not where NO_COLOR is set.
    pub(super) fn of_process() -> Self {
        let width = terminal_size::terminal_size_of(std::io::stdout())
            .map_or(WIDTH, |(width, _)| usize::from(width.0).max(1));
        let (levels, cells) = match unicode_of_process() {
            true => (BLOCKS, BAR),
            false => (ASCII, ASCII_BAR),
        };
        Self {
            width,
            levels,
            cells,
            coloured: coloured(),
        }
    }

    /// A canvas of ASCII.
    #[cfg(test)]
    pub(super) fn ascii(width: usize) -> Self {
        Self {
            width,
            levels: ASCII,
            cells: ASCII_BAR,
            coloured: false,
        }
    }

    /// How many points share a column, so that so many fit.
    pub(super) fn share(&self, points: usize) -> usize {
        points.div_ceil(self.width).max(1)
    }

    /// A bar of so many cells, of which as many are full as the part is of the
    /// whole: all only where it is the whole, and none only where it is nothing.
    pub(super) fn bar(&self, part: i64, whole: i64, cells: usize) -> String {
        let (part, whole) = (i128::from(part), i128::from(whole.max(1)));
        let most = cells as i128;
        let full = match part.saturating_mul(most) / whole {
            0 if part > 0 => 1,
            full => full.clamp(0, most),
        };
        let full = usize::try_from(full).unwrap_or(0);
        let [filled, blank] = self.cells;
        let (filled, blank) = (
            filled.to_string().repeat(full),
            blank.to_string().repeat(cells - full),
        );
        let [before, after] = if self.coloured { COLOUR } else { [""; 2] };
        format!("{before}{filled}{after}{blank}")
    }

    /// One column a value, against this value as the most. What is not nothing is
    /// seen; what there is not is blank.
    pub(super) fn line(&self, values: &[Option<i128>], most: i128) -> String {
        let level = |value: i128| {
            let steps = self.levels.len() as i128;
            let height = value.saturating_mul(steps).saturating_add(most - 1) / most.max(1);
            let at = usize::try_from(height.clamp(1, steps) - 1).unwrap_or(0);
            self.levels.get(at).copied().unwrap_or(' ')
        };
        let columns = values.iter().map(|value| value.map_or(' ', level));
        columns.collect::<String>()
    }
}

/// Whether this process may write in colours.
pub(super) fn coloured() -> bool {
    let variable = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = env::var_os("TERM").is_none_or(|term| term == "dumb");
    io::stdout().is_terminal() && !variable("NO_COLOR") && !dumb
}

/// Whether this process may write more than ASCII.
pub(super) fn unicode_of_process() -> bool {
    unicode(|name| env::var(name).ok())
}

/// Whether the terminal can be sent more than ASCII.
fn unicode(variable: impl Fn(&str) -> Option<String>) -> bool {
    // The first that is set decides, as POSIX has it.
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(|name| variable(name).filter(|value| !value.is_empty()));
    let utf8 = locale.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    });
    utf8 && variable("TERM").as_deref() != Some("dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_nothing_is_seen_and_the_most_is_full() {
        let canvas = Canvas::ascii(80);
        let values = [None, Some(1), Some(500), Some(999), Some(1000), Some(2000)];
        assert_eq!(canvas.line(&values, 1000), " .=@@@");
        assert_eq!(canvas.line(&[Some(0), None], 1000), ". ");
        assert_eq!(canvas.line(&[Some(0)], 0), ".");
        let blocks = Canvas {
            levels: BLOCKS,
            ..canvas
        };
        let steps: Vec<_> = (1..=8).map(Some).collect();
        assert_eq!(blocks.line(&steps, 8), "▁▂▃▄▅▆▇█");
    }

    #[test]
    fn a_bar_is_full_only_where_it_is_the_whole() {
        let canvas = Canvas::ascii(80);
        for (part, whole, bar) in [
            (0, 0, "...."),
            (0, 9, "...."),
            (1, 1_000_000, "#..."),
            (1, 2, "##.."),
            (999_999, 1_000_000, "###."),
            (9, 9, "####"),
            (i64::MAX, i64::MAX, "####"),
        ] {
            assert_eq!(canvas.bar(part, whole, 4), bar, "{part} of {whole}");
        }
        let coloured = Canvas {
            coloured: true,
            cells: BAR,
            ..canvas
        };
        assert_eq!(coloured.bar(1, 2, 2), "\u{1b}[32m█\u{1b}[0m░");
    }

    #[test]
    fn points_share_columns_where_there_are_too_many() {
        let canvas = Canvas::ascii(60);
        let shares = [0, 1, 60, 61, 120, 121].map(|points| canvas.share(points));
        assert_eq!(shares, [1, 1, 1, 2, 2, 3]);
    }

    #[test]
    fn the_locale_tells_whether_blocks_can_be_shown() {
        let asked = |set: &[(&str, &str)]| {
            unicode(|name| {
                let found = set.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        assert!(asked(&[("LANG", "en_US.UTF-8")]));
        assert!(asked(&[
            ("LC_ALL", ""),
            ("LC_CTYPE", "C.utf8"),
            ("LANG", "C")
        ]));
        assert!(!asked(&[("LC_ALL", "C"), ("LANG", "en_US.UTF-8")]));
        assert!(!asked(&[]));
        assert!(!asked(&[("LANG", "C.UTF-8"), ("TERM", "dumb")]));
    }
}
