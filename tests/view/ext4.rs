//! A real ext4 through the view, against the kernel's own mount of it.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use gammaray::ext4::Ext4;
use gammaray::guest::{Guest, Mounted as Volume};
use gammaray::image::RawImage;
use gammaray::view::View;

use super::fuse_support::{Loop, Mounted, Need, have, run, sh};

/// Every path with what `stat` tells of it, its extended attributes, and its content's hash.
fn listing(dir: &Path) -> String {
    sh(&format!(
        "cd {}
         find . -printf '%p %y %s %b %i %n %m %U %G %T@ %A@ %l\\n' | sort
         find . -type c -exec stat -c '%n %t %T' {{}} +
         find . -type c -o -print0 | sort -z | xargs -0 getfattr -h -d -m - -e hex
         find . -type f -size -100M -exec sha256sum {{}} + | sort -k2
         tail -c 100 sparse | sha256sum",
        dir.display()
    ))
}

#[test]
fn it_looks_as_the_kernels_mount_does() {
    let programs = ["mkfs.ext4", "losetup", "getfattr", "setfattr"].map(Need::Program);
    if !have(&[Need::Fuse, Need::Loop]) || !have(&programs) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("disk.img");
    File::create(&image).unwrap().set_len(128 << 20).unwrap();
    run("mkfs.ext4", &["-q", image.to_str().unwrap()]);
    let [theirs, ours] = ["theirs", "ours"].map(|n| dir.path().join(n));
    sh(&format!("mkdir {} {}", theirs.display(), ours.display()));
    let device = Loop::new(&image, false);
    let mounted = Mounted::new(&["-t", "ext4", &device.0], &theirs);
    sh(&format!(
        "cd {}
         mkdir -p a/b/c many; (cd many; seq 5000 | xargs touch)
         for i in $(seq 40); do head -c $((i * 3001)) /dev/urandom >a/b/f$i; done
         ln a/b/f1 hard; ln -s a/b/f2 soft; ln -s /$(printf %0200d 0) long; mkfifo fifo; mknod chr c 259 70000
         truncate -s 5G sparse; echo end >>sparse; echo x >$(printf '%0255d' 1)
         setfattr -n user.x -v hello hard; setfattr -n trusted.y -v z a; chown 12:34 soft hard; chmod 4711 a/b/f3
         touch -d 1950-01-01 a/b/f4; touch -d 2300-01-01 a/b/f5",
        theirs.display()
    ));
    mounted.unmount();
    let mounted = Mounted::new(&["-t", "ext4", "-o", "ro,noatime", &device.0], &theirs);
    let tree = Arc::new(Ext4::open(Arc::new(RawImage::open(&image).unwrap())).unwrap());
    let guest = Arc::new(Guest::new(vec![Volume { name: "disk".into(), tree }]));
    let view = View::mount(guest, &ours).unwrap();
    let (want, got) = (listing(&theirs), listing(&ours));
    let differs = want.lines().zip(got.lines()).find(|(w, g)| w != g);
    assert!(want == got, "first difference (kernel, view): {differs:?}");
    drop(view);
    mounted.unmount();
}
