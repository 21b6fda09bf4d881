//! Bills: what tenants owe for a calendar month, from what was counted. It does
//! not know how anything was counted, nor how a bill is paid.

mod bill;
mod closing;
mod consumption;
mod listing;
mod price;
mod proration;
mod segment;
mod statement;

pub use bill::Bill;
pub use closing::Closing;
pub use listing::Statements;
pub use price::{BASE_FEE, GIB_HOUR, Metric, Price, Tariff};
pub use segment::Segment;
pub use statement::{Line, Overflow, Part, Quantities, Statement, draw_up};
