//! Upper bound of the memory that a configuration may need.

use skirmish_core::node::budget::{Budget, Shell, Size};
use skirmish_core::registry::RegistryConfig;

use super::{Config, RegistryKind};

/// Bytes of a connection's buffers: the WebSocket's, answers to pings, one round of the writer, and
/// the granularity of the allocator.
const CONNECTION: usize = 16 * 1024;
/// Bytes of TLS, for a connection or a link.
const TLS: usize = 64 * 1024;
/// Bytes of an upgrade request: its head as received, and its token.
const HEAD: usize = 16 * 1024;
/// Bytes of a link's buffers.
const LINK: usize = 256 * 1024;
/// Bytes of a request to a registry outside the process, and of its answer.
const REQUEST: usize = 16 * 1024;

impl Config {
    /// Returns an upper bound of the memory that a server with this configuration needs.
    #[must_use]
    pub fn budget(&self) -> Budget {
        self.budget_of(&self.core())
    }

    /// Returns an upper bound of the memory that a server needs whose limits were lowered to those
    /// of the machine.
    pub(crate) fn budget_of(&self, core: &skirmish_core::config::Config) -> Budget {
        let tls = |used: bool| if used { TLS } else { 0 };
        let shell = Shell {
            connection: CONNECTION + tls(self.tls.certificate_file.is_some()),
            head: HEAD + tls(self.tls.certificate_file.is_some()),
            link: LINK + tls(self.cluster.tls.certificate_file.is_some()),
            registry: match self.registry.kind {
                RegistryKind::Embedded => RegistryConfig::default().bytes,
                RegistryKind::Etcd => self.registry.etcd.requests.saturating_mul(REQUEST),
            },
        };
        Budget::new(core, shell)
    }

    /// Returns the budget as comments below the configuration.
    #[must_use]
    pub fn budget_comments(&self) -> String {
        let budget = self.budget();
        let mut text = format!(
            "\n# Memory that these limits allow at most: {}; to one address with sessions and rooms: {}.\n",
            Size(budget.total()),
            Size(budget.of_address())
        );
        for item in budget.items() {
            text.push_str(&format!("#   {item}\n"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_comments_leave_the_configuration_what_it_is() {
        let config = Config::default();
        let text = config.to_toml().unwrap() + &config.budget_comments();
        assert_eq!(toml::from_str::<toml::Table>(&text), toml::from_str(&config.to_toml().unwrap()));
        assert!(text.contains("# Memory that these limits allow at most: "), "{text}");
        assert!(text.contains("#   connections: 18000 of "), "{text}");
    }

    #[test]
    fn what_is_configured_counts() {
        let config = Config::default();
        let mut secure = Config::default();
        secure.tls.certificate_file = Some("certificate.pem".into());
        let more = (18_000 + 1_024) * TLS as u64;
        assert_eq!(secure.budget().total() - config.budget().total(), more);
        let clustered = |requests| {
            let mut clustered = Config::default();
            clustered.registry.kind = RegistryKind::Etcd;
            clustered.registry.etcd.requests = requests;
            clustered.budget().total()
        };
        assert_eq!(clustered(101) - clustered(100), REQUEST as u64);
    }
}
