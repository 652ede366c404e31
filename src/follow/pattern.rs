//! `[HOST:]VM:PATHGLOB`.

use super::glob::matches;

/// What to follow. All parts are globs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pattern {
    /// Host of the agent; `None`: any.
    pub host: Option<String>,
    /// Name of the VM.
    pub vm: String,
    /// Path in the guest.
    pub path: String,
}

impl Pattern {
    /// Paths begin with `/` or `*`; hosts and VMs have no `/` in their names. Without a path it is
    /// all of them.
    ///
    /// Errors: what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let end = text.find('/').map_or(text.len(), |slash| slash);
        let (head, path) = match (text.get(..end), text.get(end..)) {
            (Some(before), Some(path)) if !path.is_empty() => {
                let head = before.strip_suffix(':').ok_or("a path needs a VM and a colon before it")?;
                (head, path)
            }
            _ => match text.rsplit_once(':') {
                Some((head, path)) => (head, path),
                None => (text, "*"),
            },
        };
        let (host, vm) = match head.split_once(':') {
            Some((host, vm)) => (Some(host.to_owned()), vm),
            None => (None, head),
        };
        if vm.is_empty() || vm.contains(':') {
            return Err("write it as [HOST:]VM:PATH".into());
        }
        Ok(Self { host, vm: vm.to_owned(), path: if path.is_empty() { "*".into() } else { path.to_owned() } })
    }

    /// The pattern of channels for it.
    pub fn channels(&self) -> String {
        format!("{}:{}:{}", self.host.as_deref().unwrap_or("*"), self.vm, self.path)
    }

    /// Whether an agent on `host` for `vm` is meant.
    pub fn is_agent(&self, host: &str, vm: &str) -> bool {
        self.host.as_ref().is_none_or(|h| matches(h.as_bytes(), host.as_bytes()))
            && matches(self.vm.as_bytes(), vm.as_bytes())
    }

    /// Whether an event about one of these paths is meant. One about no path always is.
    pub fn is_path<'a>(&self, mut paths: impl Iterator<Item = &'a [u8]>) -> bool {
        let Some(first) = paths.next() else { return true };
        std::iter::once(first).chain(paths).any(|p| matches(self.path.as_bytes(), p))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_told_apart() {
        let p = |host: Option<&str>, vm: &str, path: &str| {
            Ok(Pattern { host: host.map(Into::into), vm: vm.into(), path: path.into() })
        };
        assert_eq!(Pattern::parse("web"), p(None, "web", "*"));
        assert_eq!(Pattern::parse("web:*"), p(None, "web", "*"));
        assert_eq!(Pattern::parse("web:/var/a:b"), p(None, "web", "/var/a:b"));
        assert_eq!(Pattern::parse("node1:web*:/var/*"), p(Some("node1"), "web*", "/var/*"));
        assert_eq!(Pattern::parse("*:web:*.log"), p(Some("*"), "web", "*.log"));
        assert!(
            [Pattern::parse("/var"), Pattern::parse(":/x"), Pattern::parse("a:b:c:/x"), Pattern::parse("")]
                .iter()
                .all(Result::is_err)
        );
        assert_eq!(Pattern::parse("web:/x").unwrap().channels(), "*:web:/x");
    }
}
