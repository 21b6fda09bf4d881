//! What an operator looks at: `top` in a terminal, and the page of the admin port in a
//! browser. It does not know how the figures are counted.

mod admin_port;
mod browser;
mod page;
mod terminal;
