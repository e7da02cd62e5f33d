/** Rows of the table of breakages (breakages.ts) for recovery points, failover, changes of direction, and the hypervisor adapters. */
import type { Breakage } from './breakages.ts';

const REPLICA = 'src/replication/replica-vm.ts';
const KEPT = 'src/replication/recovery-points.ts';
const FAILOVER = 'src/failover/replica-failover.ts';
const OLD_PRIMARY = 'src/failover/primary-direction.ts';
const DOMAIN = 'src/failover/adapters/domain-xml.ts';
const PROGRAMS = 'src/failover/adapters/host-programs.ts';

const R14 = 'test/rules/r14-undo.test.ts';
const R15 = 'test/rules/r15-test-failover.test.ts';
const R19 = 'test/rules/r19-points.test.ts';
const DIRECTION = 'test/rules/r21-r23-direction.test.ts';
const DOMAINS = 'src/failover/adapters/domain-xml.test.ts';
const COMMANDS = 'src/failover/adapters/command.test.ts';

const POINTS: Breakage[] = [
  { rule: 'R14', what: 'the undo of a set is kept when the set has been written', file: REPLICA, test: R14, only: 'the undo of a set',
    from: '    await this.points.keepForSet(record, signal);\n    await growForSet(this.#ports, this, record);\n' +
      '    const applied = await applySet(this.#ports, record, replicatedDisks(this.vm), signal);\n',
    to: '    await growForSet(this.#ports, this, record);\n' +
      '    const applied = await applySet(this.#ports, record, replicatedDisks(this.vm), signal);\n    await this.points.keepForSet(record, signal);\n' },
  { rule: 'R14', what: 'the undo of one set in three is not kept', file: REPLICA, test: R14, only: 'the undo of a set',
    from: '    await this.points.keepForSet(record, signal);\n', to: '    if (record.epoch % 3 !== 0) await this.points.keepForSet(record, signal);\n' },
  { rule: 'R14', what: 'undo counts as kept before it is durable', file: 'src/hrl/undo-writer.ts', test: R14, only: 'the undo of a set',
    from: '    await this.#file.datasync();\n    if (this.#isNew)', to: '    if (this.#isNew)' },
  { rule: 'R14', what: 'undo is on record before it is kept', file: KEPT, test: R14, only: 'the undo of a set',
    from: '          await captureUndo(opened, ranges',
    to: '          this.#ports.catalog.points.put({ ...newest, undoneThrough: epoch });\n          await captureUndo(opened, ranges' },
  { rule: 'R14', what: 'points go for want of room, and nobody is told', file: KEPT, test: R14, only: 'no room',
    from: '    this.#ports.relationships.note(this.#vmId,\n' +
      '      makeEvent(ACTIVITY_EVENTS.recoveryPointsLost, this.#name(), { points: points.map(pointId), reason }));\n',
    to: '' },
  { rule: 'R14', what: 'more points are kept than the setting says', file: KEPT, test: R14, only: 'no more points',
    from: '    await this.#remove(surplus(this.list(), this.#relationship().settings.recoveryHistory));\n', to: '' },
  { rule: 'R14', what: 'a point that went meanwhile comes back', file: KEPT, test: R14, only: 'becomes 0 while undo',
    from: '    if (still === undefined) return this.#removeFiles([newest]);\n    this.#ports.catalog.transaction(() => points.put({ ...still,',
    to: '    void still;\n    this.#ports.catalog.transaction(() => points.put({ ...newest,' },
  { rule: 'R15', what: 'apply goes on under a test failover', file: REPLICA, test: R15, only: 'while a test runs',
    from: '    if ((relationship.failover ?? relationship.testFailover ?? null) !== null) return undefined;\n', to: '' },
  { rule: 'R15', what: 'a failover waits for a long set instead of stopping it', file: REPLICA, test: R15, only: 'applied by halves',
    from: '    this.#halted.abort(new Error(`apply is halted for ${who}`));\n', to: '' },
  { rule: 'R15', what: 'a point that cannot be used is served', file: FAILOVER, test: R15, only: 'damage of one',
    from: 'usable(findPoint(vm.points.list(), asked), asked, vm.vm.name)', to: 'findPoint(vm.points.list(), asked)!' },
  { rule: 'R15', what: 'two failovers of a VM at once', file: FAILOVER, test: R15, only: 'two commands',
    from: 'const turn = (this.#turns.get(vmId) ?? Promise.resolve()).then(work);', to: 'const turn = Promise.resolve().then(work);' },
  { rule: 'R15', what: 'damage of an undo log is found and not told', file: 'src/replication/undo-layer.ts', test: R15, only: 'damage of one',
    from: '      this.#damaged(error);\n', to: '' },
  { rule: 'R19', what: 'the merge does not keep what it overwrites', file: 'src/resync/replica-merge.ts', test: R19, only: 'with it the merge', quick: true,
    from: '    if (keepsPoints === true) await this.#keepPoints(vm, token, throughEpoch!);\n', to: '' },
  { rule: 'R19', what: 'the old points outlive what they rest on', file: 'src/resync/replica-resync.ts', test: R19, only: 'without the setting',
    from: "else await vm.forgetPoints('a resynchronization has changed what they rest on', record);", to: 'else this.#ports.catalog.transaction(record);' },
  { rule: 'R19', what: 'a run without a merge makes an edited replica an instant', file: 'src/resync/replica-resync.ts',
    test: 'test/rules/r19-lost-until-merged.test.ts', only: 'cancelled',
    from: '{ resync: null, lost: vm.relationship.lost ?? resync.lost ?? null }', to: '{ resync: null }' },
];

const TURNS: Breakage[] = [
  { rule: 'R22', what: 'a primary that was asked lets guests in all the same',
    file: 'src/model/direction.ts', test: DIRECTION, only: 'that was asked lets', quick: true,
    from: '  if ((relationship.tookOver ?? null) !== null) return tookOverError(vmName, other);\n', to: '' },
  { rule: 'R22', what: 'a primary that can be asked is not', file: 'src/failover/replica-direction.ts', test: DIRECTION, only: 'while the guest runs',
    from: '        await this.#askPrimary(vm, signal);\n', to: '' },
  { rule: 'R22', what: 'a primary gives way under a running guest', file: OLD_PRIMARY, test: DIRECTION, only: 'while the guest runs',
    from: "    this.#refuseGuests(vmId, 'Shut the guest down there first, or do a planned failover, which loses nothing.');\n", to: '' },
  { rule: 'R21', what: 'what the old primary wrote is dropped unasked', file: OLD_PRIMARY, test: DIRECTION, only: 'dropped only by a command', quick: true,
    from: '    if (prepared === null && !params.discard) this.#refuseDivergence(vmId, params.failedOverAt);\n', to: '' },
  { rule: 'R21', what: 'an old primary starts a resynchronization towards the new one',
    file: 'src/resync/primary-resync.ts', test: DIRECTION, only: 'sends nothing',
    from: 'if (required === null || tookOver !== null) return null;', to: 'if (required === null) return null;' },
  { rule: 'R23', what: 'what the old primary had not sent is not compared', file: OLD_PRIMARY, test: DIRECTION, only: 'compares what either side', quick: true,
    from: '[diskId, suspects.get(diskId) ?? []]', to: '[diskId, []]' },
];

const ADAPTERS: Breakage[] = [
  { rule: 'adapter', what: 'network cards stay plugged in', file: DOMAIN, test: DOMAINS,
    from: "    append(device, 'link', { state: 'down' });\n", to: '' },
  { rule: 'adapter', what: 'a test guest has the UUID of its guest', file: DOMAIN, test: DOMAINS,
    from: "  if (edit.test !== null) setText(root, 'uuid', edit.test.uuid);\n  else if", to: '  if' },
  { rule: 'adapter', what: 'a test guest has the MAC addresses of its guest', file: DOMAIN, test: DOMAINS,
    from: "  if (test !== null && mac !== null) mac.setAttribute('address', testMac(test.macSeed, address));\n", to: '' },
  { rule: 'adapter', what: 'a definition may name any file of this host as firmware', file: DOMAIN, test: DOMAINS,
    from: "    if (textOf(loader) === '' || FIRMWARE.test(textOf(loader))) continue;\n", to: '    if (textOf(loader) !== null) continue;\n' },
  { rule: 'adapter', what: 'a document type is read', file: DOMAIN, test: DOMAINS,
    from: "  if (/<!(DOCTYPE|ENTITY)/i.test(xml)) throw invalid('it has a document type');\n", to: '' },
  { rule: 'adapter', what: 'what a hanging program started is left over', file: PROGRAMS, test: COMMANDS, only: 'hangs',
    from: '    process.kill(-child.pid, signal);', to: '    process.kill(child.pid, signal);' },
  { rule: 'adapter', what: 'a program that fails counts as done', file: 'src/failover/adapters/command.ts', test: COMMANDS, only: 'that fails says',
    from: '  if (!result.timedOut && result.exitCode === 0) return;\n', to: '  if (!result.timedOut) return;\n' },
];

export const FAILOVER_BREAKAGES: readonly Breakage[] = [...POINTS, ...TURNS, ...ADAPTERS];
