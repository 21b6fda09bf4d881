//! Bills: what tenants owe for a calendar month, from what was counted. It does
//! not know how anything was counted, nor how a bill is paid.

mod price;
mod proration;
mod statement;

pub use price::{BASE_FEE, GIB_HOUR, Metric, Price, Tariff};
pub use statement::{Line, Overflow, Part, Quantities, Statement, draw_up};
