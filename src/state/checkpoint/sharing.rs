//! What whoever works with checkpoints may need of what they are taken with. It does not
//! know who that is.

use std::collections::BTreeMap;

use super::Checkpoints;
use crate::tenant::Tenants;

impl Checkpoints {
    /// The tenants that they are taken of.
    pub(in crate::state) fn tenants(&self) -> &Tenants {
        &self.vault.tenants
    }

    /// The settings in force here, as they are shown, by their paths.
    pub(in crate::state) fn shown_settings(&self) -> BTreeMap<String, String> {
        let in_force = self.vault.configuration.in_force();
        let settings = in_force.loaded.settings.iter();
        settings
            .map(|setting| (setting.path.clone(), setting.value.clone()))
            .collect()
    }
}
