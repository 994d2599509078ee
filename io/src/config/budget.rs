//! The memory that a configuration may need.

use skirmish_core::node::budget::{Budget, Shell, Size};
use skirmish_core::registry::RegistryConfig;

use super::{Config, RegistryKind};

/// Bytes of a connection's buffers: of the WebSocket, of answers to its pings, of one turn of
/// the writer, and the blocks in which memory is handed out.
const CONNECTION: usize = 16 * 1024;
/// Bytes of a connection's TLS, or a link's.
const TLS: usize = 64 * 1024;
/// Bytes of a request for an upgrade: its head as it came, and its token.
const HEAD: usize = 16 * 1024;
/// Bytes of a link's buffers.
const LINK: usize = 256 * 1024;
/// Bytes of a request to a registry that is not in the process, and of its answer.
const REQUEST: usize = 16 * 1024;

impl Config {
    /// The memory that a server with this configuration may need at most.
    #[must_use]
    pub fn budget(&self) -> Budget {
        self.budget_of(&self.core())
    }

    /// The memory that a server may need at most whose limits were lowered to what the machine
    /// allows.
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

    /// The budget as comments below the configuration.
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
