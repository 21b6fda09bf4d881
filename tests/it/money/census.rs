//! Counts a tenant's entries in Redis itself, in one atomic step and with nothing
//! of the service's code. It knows only how the keys of entries are named.

use crate::redis::Redis;

/// Counts the keys that a pattern matches, and their bytes without the beginning
/// of their names that no caller chose. KEYS leaves out what has expired.
const COUNT: &str = "
local entries, bytes = 0, 0
for _, name in ipairs(redis.call('KEYS', ARGV[1])) do
  local length = redis.call('STRLEN', name)
  if length > 0 then
    entries = entries + 1
    bytes = bytes + length + #name - tonumber(ARGV[2])
  end
end
return entries .. ' ' .. bytes";

/// What Redis holds of a tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    pub entries: u64,
    pub bytes: u64,
}

/// The tenant that has written since `before`: the name of its space.
pub fn space(redis: &Redis, before: &[String]) -> String {
    let mut spaces = spaces(redis);
    spaces.retain(|space| !before.contains(space));
    assert_eq!(spaces.len(), 1, "{spaces:?}");
    spaces.remove(0)
}

/// The spaces that hold entries.
pub fn spaces(redis: &Redis) -> Vec<String> {
    let mut spaces: Vec<String> = redis
        .cli(&["--scan", "--pattern", "v1:{*}:k:*"])
        .lines()
        .filter_map(|name| name.strip_prefix("v1:{")?.split('}').next())
        .map(str::to_owned)
        .collect();
    spaces.sort();
    spaces.dedup();
    spaces
}

/// Counts what a space holds. Its entries must all be of its first generation.
pub fn count(redis: &Redis, space: &str) -> Census {
    let beginning = format!("v1:{{{space}}}:k:0:");
    let pattern = format!("{beginning}*");
    let told = redis.cli(&["eval", COUNT, "0", &pattern, &beginning.len().to_string()]);
    let mut figures = told.split(' ').map(|figure| {
        figure
            .parse()
            .unwrap_or_else(|_| panic!("redis said {told:?}"))
    });
    Census {
        entries: figures.next().unwrap(),
        bytes: figures.next().unwrap(),
    }
}
