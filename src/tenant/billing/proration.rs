//! Parts of what holds for a whole period, and who has what is left of them. It
//! does not know what any of it costs.

/// The parts that are due of amounts for a whole, each for a part of it: their
/// running sum is rounded half up, so that however a time is divided, equal amounts
/// add up to what they are for it undivided.
pub(super) fn shares(whole_ms: u64, parts: impl Iterator<Item = (i64, u64)>) -> Vec<i128> {
    let whole = i128::from(whole_ms).max(1);
    let (mut sum, mut before) = (0, 0);
    parts
        .map(|(amount, ms)| {
            sum += i128::from(amount) * i128::from(ms);
            let due = half_up(sum, whole);
            let share = due - before;
            before = due;
            share
        })
        .collect()
}

/// A quotient rounded half up; both are 0 or more, the divisor more than 0.
pub(super) fn half_up(dividend: i128, divisor: i128) -> i128 {
    let (whole, rest) = (dividend / divisor, dividend % divisor);
    whole + i128::from(rest >= divisor - rest)
}

/// One of the parts that pool what is included.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need {
    /// What was consumed.
    pub(super) quantity: i128,
    /// What is included in this part.
    pub(super) own: i128,
    /// Whether it pools: what costs nothing needs nothing of others, and has
    /// nothing to leave.
    pub(super) pools: bool,
}

/// What is included in each part, once what parts leave of their own has gone to
/// those that need more, in their order; the last has what nobody needs.
pub(super) fn pooled(needs: &[Need]) -> Vec<i128> {
    let mut left: i128 = needs
        .iter()
        .filter(|need| need.pools)
        .map(|need| (need.own - need.quantity).max(0))
        .sum();
    let mut included: Vec<i128> = needs
        .iter()
        .map(|need| {
            if !need.pools {
                return need.own;
            }
            let more = (need.quantity - need.own).clamp(0, left);
            left -= more;
            need.own.min(need.quantity) + more
        })
        .collect();
    let last = needs.iter().rposition(|need| need.pools);
    if let Some(last) = last.and_then(|last| included.get_mut(last)) {
        *last += left;
    }
    included
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_go_up() {
        for (dividend, divisor, rounded) in [
            (0, 1, 0),
            (1, 2, 1),
            (1, 3, 0),
            (2, 3, 1),
            (49, 100, 0),
            (50, 100, 1),
            (149, 100, 1),
            (150, 100, 2),
            (i128::MAX, 1, i128::MAX),
        ] {
            assert_eq!(half_up(dividend, divisor), rounded, "{dividend}/{divisor}");
        }
    }

    #[test]
    fn shares_of_equal_amounts_add_up() {
        // 10 for three thirds: 3.33, 6.67, 10.
        assert_eq!(shares(3, [(10, 1); 3].into_iter()), [3, 4, 3]);
        assert_eq!(shares(3, [(10, 3)].into_iter()), [10]);
        // 10 for a half, then 20 for a half.
        assert_eq!(shares(4, [(10, 2), (20, 2)].into_iter()), [5, 10]);
        assert_eq!(shares(0, [(10, 0)].into_iter()), [0]);
    }

    #[test]
    fn what_one_part_leaves_another_has() {
        let need = |quantity, own| Need {
            quantity,
            own,
            pools: true,
        };
        let free = |quantity, own| Need {
            pools: false,
            ..need(quantity, own)
        };
        for (needs, included) in [
            (vec![need(30, 50), need(80, 50)], vec![30, 70]),
            (vec![need(80, 50), need(30, 50)], vec![70, 30]),
            (vec![need(10, 50), need(20, 50)], vec![10, 90]),
            (vec![need(60, 50), need(70, 50)], vec![50, 50]),
            (
                vec![need(60, 50), need(70, 50), need(35, 50)],
                vec![60, 55, 35],
            ),
            (vec![free(60, 10), need(70, 50)], vec![10, 50]),
            (vec![need(20, 50), free(0, 10)], vec![50, 10]),
            (vec![], vec![]),
        ] {
            assert_eq!(pooled(&needs), included, "{needs:?}");
        }
    }
}
