//! State meets a topology that changed, or another cluster.

use super::*;

fn history(root: &Path) -> RocksDirectory {
    let owner = directory(root);
    apply_batches(&mut open(&owner, &layout(&["a", "b"])), 1..=10);
    owner
}

#[test]
fn a_new_store_is_empty_and_has_no_position() {
    let root = temporary();
    let owner = history(root.path());
    let task = open(&owner, &layout(&["a", "new", "b"]));
    assert_eq!(entries(&task, 0).expect("readable"), model_at(10)[0]);
    assert_eq!(entries(&task, 1).expect("readable"), Entries::new());
    assert_eq!(entries(&task, 2).expect("readable"), model_at(10)[1], "stores are found by name");
    let [a, b] = positions_of(10).changelogs[..] else { panic!("two stores") };
    assert_eq!(task.positions().changelogs, [a, None, b]);
}

#[test]
fn a_store_that_is_gone_stops_the_start() {
    let root = temporary();
    let owner = history(root.path());
    let error = owner.open(&task_id(), &layout(&["a"])).expect_err("what is in `b` may be wanted");
    assert_eq!(error.kind, StateErrorKind::Foreign);
    assert!(error.message.contains("`b` on disk but not in the topology; "), "{error}");
    assert!(error.message.contains("remove that directory"), "{error}");

    let error = owner.open(&task_id(), &layout(&["a", "c"])).expect_err("`b` was renamed");
    assert!(error.message.contains("`c` in the topology but not on disk"), "{error}");

    assert_eq!(assert_is_a_prefix(&open(&owner, &layout(&["a", "b"]))), 10, "nothing was touched");
}

#[test]
fn another_cluster_wipes_all() {
    let root = temporary();
    let owner = history(root.path());
    let mut other = layout(&["a", "b"]);
    other.cluster_id = "other".to_owned();
    assert_eq!(assert_is_a_prefix(&open(&owner, &other)), 0);
}

#[test]
fn a_changelog_made_again_wipes_its_store() {
    let root = temporary();
    let owner = history(root.path());
    let mut other = layout(&["a", "b"]);
    other.stores[1].changelog_topic_id = Some("made again".to_owned());
    let task = open(&owner, &other);
    assert_eq!(task.positions().changelogs, [positions_of(10).changelogs[0], None]);
    assert_eq!(entries(&task, 0).expect("readable"), model_at(10)[0]);
    assert_eq!(entries(&task, 1).expect("readable"), Entries::new());
}

#[test]
fn a_parked_state_is_opened_anew_for_another_layout() {
    let root = temporary();
    let owner = history(root.path());
    owner.park(open(&owner, &layout(&["a", "b"])));
    let mut other = layout(&["a", "b"]);
    other.cluster_id = "other".to_owned();
    assert_eq!(assert_is_a_prefix(&open(&owner, &other)), 0);
}
