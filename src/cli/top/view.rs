//! What whoever looks has chosen: the order of tenants, the one selected, a pause, the
//! help. It does not know how any of it is drawn.

use std::cmp::Ordering;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::{
    figures::{OTHER, Tenant},
    fleet::Fleet,
};

/// Rows that a page goes up or down.
const PAGE: isize = 10;

/// What tenants are ordered by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    #[default]
    Calls,
    Errors,
    Throttled,
    /// The fewest hits first.
    Hits,
    Quota,
    Name,
}

impl Sort {
    fn next(self) -> Self {
        match self {
            Self::Calls => Self::Errors,
            Self::Errors => Self::Throttled,
            Self::Throttled => Self::Hits,
            Self::Hits => Self::Quota,
            Self::Quota => Self::Name,
            Self::Name => Self::Calls,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::Errors => "errors",
            Self::Throttled => "throttled",
            Self::Hits => "hit ratio",
            Self::Quota => "quota",
            Self::Name => "name",
        }
    }

    /// What is worth a look first.
    fn order(self, a: &Tenant, b: &Tenant) -> Ordering {
        let part = |tenant: &Tenant| tenant.fullest().map_or(-1.0, |(_, part)| part);
        let hits = |tenant: &Tenant| tenant.hit_ratio.unwrap_or(f64::MAX);
        match self {
            Self::Calls => b.calls.total_cmp(&a.calls),
            Self::Errors => b.errors.total_cmp(&a.errors),
            Self::Throttled => b.throttled.total_cmp(&a.throttled),
            Self::Hits => hits(a).total_cmp(&hits(b)),
            Self::Quota => part(b).total_cmp(&part(a)),
            Self::Name => Ordering::Equal,
        }
    }
}

/// What is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    pub(super) sort: Sort,
    pub(super) reversed: bool,
    /// By its id, so that it stays selected wherever it goes.
    pub(super) selected: Option<String>,
    pub(super) paused: bool,
    pub(super) help: bool,
}

/// What a key asks for beyond the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Press {
    Quit,
    /// Look at the view again.
    Look,
    Nothing,
}

impl View {
    /// The tenants in the order chosen; the sum of the rest is always the last.
    pub(super) fn order<'a>(&self, fleet: &'a Fleet) -> Vec<&'a Tenant> {
        let mut tenants: Vec<&Tenant> = fleet.tenants.iter().collect();
        tenants.sort_by(|a, b| {
            let rest = |tenant: &Tenant| tenant.tenant_id == OTHER;
            let chosen = self
                .sort
                .order(a, b)
                .then_with(|| a.tenant_id.cmp(&b.tenant_id));
            let chosen = match self.reversed {
                true => chosen.reverse(),
                false => chosen,
            };
            rest(a).cmp(&rest(b)).then(chosen)
        });
        tenants
    }

    pub(super) fn press(&mut self, key: KeyEvent, fleet: &Fleet) -> Press {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c' | 'd') if control => return Press::Quit,
            _ if control => return Press::Nothing,
            KeyCode::Char('q' | 'Q') => return Press::Quit,
            KeyCode::Esc if self.help => self.help = false,
            KeyCode::Esc => self.selected = None,
            KeyCode::Char('?' | 'h') => self.help = !self.help,
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('r') => self.reversed = !self.reversed,
            KeyCode::Down | KeyCode::Char('j') => self.step(1, fleet),
            KeyCode::Up | KeyCode::Char('k') => self.step(-1, fleet),
            KeyCode::PageDown => self.step(PAGE, fleet),
            KeyCode::PageUp => self.step(-PAGE, fleet),
            KeyCode::Home => self.step(isize::MIN, fleet),
            KeyCode::End => self.step(isize::MAX, fleet),
            _ => return Press::Nothing,
        }
        Press::Look
    }

    /// Selects the tenant so many rows further, the first where none is selected.
    fn step(&mut self, rows: isize, fleet: &Fleet) {
        let order = self.order(fleet);
        let last = order.len().saturating_sub(1);
        let selected = self.selected.as_ref().and_then(|selected| {
            order
                .iter()
                .position(|tenant| tenant.tenant_id == *selected)
        });
        let next = match selected {
            None if rows == isize::MAX => last,
            None => 0,
            Some(at) => at.saturating_add_signed(rows).min(last),
        };
        self.selected = order.get(next).map(|tenant| tenant.tenant_id.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::top::figures::Quota;

    fn fleet() -> Fleet {
        let tenant = |tenant_id: &str, calls, errors, hit_ratio, used| Tenant {
            tenant_id: tenant_id.into(),
            calls,
            errors,
            hit_ratio,
            quotas: vec![Quota {
                metric: "memory_bytes".into(),
                used,
                limit: 10.0,
            }],
            ..Tenant::default()
        };
        Fleet {
            tenants: vec![
                tenant("acme", 5.0, 0.0, Some(0.9), 1.0),
                tenant("globex", 9.0, 0.0, None, 9.0),
                tenant("initech", 1.0, 3.0, Some(0.2), 5.0),
                tenant("other", 100.0, 50.0, Some(0.0), 10.0),
            ],
            ..Fleet::default()
        }
    }

    fn ids(view: &View, fleet: &Fleet) -> Vec<String> {
        let order = view.order(fleet);
        order.iter().map(|t| t.tenant_id.clone()).collect()
    }

    fn press(view: &mut View, code: KeyCode) -> Press {
        view.press(KeyEvent::from(code), &fleet())
    }

    #[test]
    fn each_order_begins_with_what_is_worth_a_look() {
        let fleet = fleet();
        let mut view = View::default();
        let orders = [
            ("calls", ["globex", "acme", "initech", "other"]),
            ("errors", ["initech", "acme", "globex", "other"]),
            ("throttled", ["acme", "globex", "initech", "other"]),
            ("hit ratio", ["initech", "acme", "globex", "other"]),
            ("quota", ["globex", "initech", "acme", "other"]),
            ("name", ["acme", "globex", "initech", "other"]),
            ("calls", ["globex", "acme", "initech", "other"]),
        ];
        for (name, order) in orders {
            assert_eq!(view.sort.name(), name);
            assert_eq!(ids(&view, &fleet), order, "{name}");
            press(&mut view, KeyCode::Char('s'));
        }
        view = View::default();
        press(&mut view, KeyCode::Char('r'));
        assert_eq!(ids(&view, &fleet), ["initech", "acme", "globex", "other"]);
    }

    #[test]
    fn the_selected_tenant_stays_selected_wherever_it_goes() {
        let mut view = View::default();
        let selected = |view: &View| view.selected.clone().unwrap_or_default();
        press(&mut view, KeyCode::Up);
        assert_eq!(selected(&view), "globex");
        press(&mut view, KeyCode::Down);
        assert_eq!(selected(&view), "acme");
        press(&mut view, KeyCode::Char('s'));
        assert_eq!(selected(&view), "acme");
        press(&mut view, KeyCode::Up);
        assert_eq!(selected(&view), "initech");
        press(&mut view, KeyCode::PageDown);
        assert_eq!(selected(&view), "other");
        press(&mut view, KeyCode::Home);
        assert_eq!(selected(&view), "initech");
        press(&mut view, KeyCode::Esc);
        assert_eq!(view.selected, None);
        let nobody = Fleet::default();
        view.press(KeyEvent::from(KeyCode::Down), &nobody);
        assert_eq!(view.selected, None);
    }

    #[test]
    fn q_and_ctrl_c_quit_and_nothing_else_does() {
        let mut view = View::default();
        assert_eq!(press(&mut view, KeyCode::Char('q')), Press::Quit);
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(view.press(interrupt, &fleet()), Press::Quit);
        assert_eq!(press(&mut view, KeyCode::Char('x')), Press::Nothing);
        assert_eq!(press(&mut view, KeyCode::Char('p')), Press::Look);
        assert_eq!(press(&mut view, KeyCode::Char('?')), Press::Look);
        assert!(view.paused && view.help);
        press(&mut view, KeyCode::Esc);
        assert!(!view.help);
    }
}
