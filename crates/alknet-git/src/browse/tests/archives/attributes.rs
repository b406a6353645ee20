//! What is left out, as git has it, and what somebody may have pushed to say so.

use gix::bstr::BString;

use super::*;

impl Rig {
    async fn plain(&self) -> Result<Vec<u8>, BrowseError> {
        self.archive(query("HEAD", Format::Tar)).await.map(|(_, bytes)| bytes)
    }
}

#[tokio::test]
async fn attributes_are_those_of_git() {
    let paths = ["a.c", "b.h", "d/a.c", "d/e/a.c", "d/e/b c", "d/f/g/a.c", "[x]", "f/x"];
    let long = |count: usize| format!("a.c export-ignore{}", " x".repeat(count));
    let root = [
        "a.c export-ignore",
        "/a.c export-ignore\r\nd/e/ export-ignore\r",
        "d/** export-ignore",
        "**/a.c export-ignore\nd/**/g/*.c !export-ignore\nd/e/a.c -export-ignore",
        "*.c export-ignore\nd/a.c export-ignore=no\nd/e/a.c export-ignore=",
        "\"d/e/b\\040c\" export-ignore\n\\[x] text export-ignore\n!f export-ignore",
        "b.h export-ignore -x=1\nd/e/a.c export-ignore $\na.c export-ignore é",
        "[attr]gone export-ignore\n*.c gone",
        "*.c gone\nb.h away\n[attr]away gone\n[attr]gone export-ignore text",
        "[attr]gone text\n[attr]gone export-ignore\n[attr]gone $\n*.c gone -export-ignore",
        "[attr]gone export-ignore\n*.c -export-ignore gone\nd/a.c gone=x\nd/e/a.c -gone",
        "[attr]gone away\n[attr]away gone\n*.c gone\n[attr]binary export-ignore\nb.h binary",
        "[attr]export-ignore text\n*.h export-ignore\n[attr]text export-ignore\n*.c text",
    ];
    let inner = [
        "",
        "*.c -gone\nf/ export-ignore",
        "[attr]gone -export-ignore\n[attr]here export-ignore\na.c here",
        "/a.c !export-ignore\ne/b* export-ignore",
    ];
    let rig = Rig::new();
    for path in paths {
        rig.write(path, path);
    }
    for root in root.map(str::to_owned).into_iter().chain([long(1000), long(1100)]) {
        for inner in inner {
            rig.write(".gitattributes", &root);
            rig.write("d/.gitattributes", inner);
            rig.commit("attributes");
            rig.push();
            let ours = of_tar(&rig.plain().await.unwrap());
            let paths =
                |content: Content| content.into_keys().map(BString::from).collect::<Vec<_>>();
            let gits = rig.git_archive(&["HEAD"]);
            assert_eq!(paths(ours), paths(gits), "{root:?} {inner:?}");
        }
    }
}

#[tokio::test]
async fn attributes_are_not_kept_without_bounds() {
    let rig = Rig::new();
    let lines = "a export-ignore\n".repeat(15_000);
    for number in 0..8 {
        rig.write(&format!("wide/{number}/.gitattributes"), &lines);
    }
    rig.commit("next to each other");
    rig.push();
    rig.plain().await.unwrap();
    for depth in 1..=5 {
        rig.write(&format!("{}.gitattributes", "d/".repeat(depth)), &lines);
    }
    rig.commit("within each other");
    rig.push();
    let outcome = rig.plain().await.map(|_| ());
    let too_large = |it: &BrowseError| matches!(it, BrowseError::TooLarge { size: 1_200_000, .. });
    assert!(outcome.as_ref().is_err_and(too_large), "{outcome:?}");
}
