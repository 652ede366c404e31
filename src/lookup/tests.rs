use super::*;
use crate::fake::{Fake, Node};

fn tree() -> Arc<dyn Tree> {
    Arc::new(Fake::new([
        (2, Node::Dir(vec![(b"d", 3), (b"up", 5), (b"abs", 6), (b"loop", 7)])),
        (3, Node::Dir(vec![(b"f", 4)])),
        (4, Node::File(b"x")),
        (5, Node::Link(b"d/../d/f")),
        (6, Node::Link(b"/d")),
        (7, Node::Link(b"loop")),
    ]))
}

fn ino(guest: &Guest, path: &str, follow: bool) -> Result<(u64, String)> {
    let (place, clean) = find(guest, path.as_bytes(), follow)?;
    let Place::File { ino, .. } = place else { return Ok((0, clean.lossy().into_owned())) };
    Ok((ino.0, clean.lossy().into_owned()))
}

#[test]
fn paths_lead_to_files() {
    let guest = Guest::new(vec![Mounted { name: "disk".into(), tree: tree() }]);
    let at = |p, follow| ino(&guest, p, follow).unwrap();
    assert_eq!(at("/", true), (2, "/".into()));
    assert_eq!(at("d/./f", true), (4, "/d/f".into()));
    assert_eq!(at("/../../d", true), (3, "/d".into()));
    assert_eq!(at("/up", true), (4, "/d/f".into()));
    assert_eq!(at("/up", false), (5, "/up".into()));
    assert_eq!(at("/abs/f", false), (4, "/d/f".into()));
    assert!(matches!(ino(&guest, "/d/f/g", true), Err(Error::NotADirectory)));
    assert!(matches!(ino(&guest, "/d/f/.", true), Err(Error::NotADirectory)));
    assert!(matches!(ino(&guest, "/none", true), Err(Error::NotFound)));
    assert!(matches!(ino(&guest, "/loop", true), Err(Error::Corrupt { .. })));
}

#[test]
fn several_volumes_are_folders_that_links_do_not_leave() {
    let volumes = ["p1", "p2"].map(|n| Mounted { name: n.into(), tree: tree() });
    let guest = Guest::new(volumes.to_vec());
    let at = |p| ino(&guest, p, true).unwrap();
    assert_eq!(at("/"), (0, "/".into()));
    assert_eq!(at("/p2/abs/f"), (4, "/p2/d/f".into()));
    assert_eq!(at("/p1/../p2"), (2, "/p2".into()));
    assert!(matches!(ino(&guest, "/p3", true), Err(Error::NotFound)));
}
