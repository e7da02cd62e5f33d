/**
 * Deliberate breakages of the rules and of promise 1, each with the test that must notice. `broken-rules.test.ts`
 * runs them. When the code of a rule is written anew, its rows here are written anew: break the rule in the new code.
 */
import { FAILOVER_BREAKAGES } from './failover-breakages.ts';

export interface Breakage {
  /** As in docs/ARCHITECTURE.md and the names of the tests: R7, P1. */
  rule: string;
  /** What is wrong then. */
  what: string;
  file: string;
  /** Text that stands in the file exactly once … */
  from: string;
  /** … and what stands there in its place. */
  to: string;
  /** The file of tests of which at least one must fail by an assertion. */
  test: string;
  /** Of that file only the tests whose names match: where the whole file takes long. */
  only?: string;
  /** Runs in `npm test` too: one for each rule. */
  quick?: true;
}

const DISK = 'src/tracking/tracked-disk.ts';
const VM = 'src/tracking/tracked-vm.ts';
const TAKE_UP = 'src/tracking/take-up.ts';
const MAP = 'src/tracking/change-map.ts';
const CONTINUITY = 'src/tracking/continuity.ts';
const LOGS = 'src/tracking/epoch-logs.ts';
const RESIZE = 'src/tracking/resize.ts';
const WRITER = 'src/hrl/log-writer.ts';
const INBOX = 'src/replication/inbox.ts';
const APPLY = 'src/replication/apply.ts';
const REPLICA = 'src/replication/replica-vm.ts';
const DELIVERY = 'src/replication/delivery.ts';
const LEGS = 'src/replication/extended/extended-legs.ts';
const SETS = 'src/replication/extended/applied-sets.ts';
const LEASE = 'src/server/data-lease.ts';

const R1 = 'test/rules/r01-log-before-disk.test.ts';
const R2 = 'test/rules/r02-process-crash.test.ts';
const R3 = 'test/rules/r03-order-and-failures.test.ts';
const R4 = 'test/rules/r04-flush.test.ts';
const R5 = 'test/rules/r05-log-switch.test.ts';
const R6 = 'test/rules/r06-zeroes.test.ts';
const R7 = 'test/rules/r07-map-before-write.test.ts';
const R8 = 'test/rules/r08-bits-drop.test.ts';
const R9 = 'test/rules/r09-resync-keeps-bits.test.ts';
const R10 = 'test/rules/r10-map-distrusted.test.ts';
const R11 = 'test/rules/r11-machine-crash.test.ts';
const R12 = 'test/rules/r12-acknowledged-is-durable.test.ts';
const R13 = 'test/rules/r13-next-link-only.test.ts';
const R14 = 'test/rules/r14-order-of-apply.test.ts';
const R15 = 'test/rules/r15-pinned-base.test.ts';
const R24 = 'test/rules/r24-identity.test.ts';
const R25 = 'test/rules/r25-one-server.test.ts';
const R26 = 'test/rules/r26-resize.test.ts';
const R27 = 'test/rules/r27-extended.test.ts';
const P1 = 'test/rules/promise-1-guest-goes-on.test.ts';
const WRITE_THREAD = 'src/disk/write-thread.test.ts';
const P1_CATALOG = 'test/rules/promise-1-catalog-fails.test.ts';

const TRACKING: Breakage[] = [
  { rule: 'R1', what: 'the disk does not wait for the data in the log', file: WRITER, test: R1, quick: true,
    from: 'this.#acknowledgeInTurn([dataWrite, this.#writeFrame(frame)])', to: 'this.#acknowledgeInTurn([this.#writeFrame(frame)])' },
  { rule: 'R1', what: 'the disk does not wait for the index of the log', file: WRITER, test: R1,
    from: 'this.#acknowledgeInTurn([dataWrite, this.#writeFrame(frame)])',
    to: 'this.#acknowledgeInTurn([dataWrite, Promise.race([this.#writeFrame(frame), Promise.resolve()])])' },
  { rule: 'R1', what: 'what the writing thread gave back counts as written', file: 'src/disk/shared-files.ts', test: WRITE_THREAD, only: 'together',
    from: 'if (isDone === true) return;', to: 'if (isDone !== null) return;' },
  { rule: 'R1', what: 'the writing thread says done before it is', file: 'src/disk/write-ring.ts', test: WRITE_THREAD, only: 'a failed write rejects',
    from: '      if (failure !== 0) return failure;\n', to: '' },
  { rule: 'R1', what: 'a write whose bit is durable does not wait for its record', file: DISK, test: R1,
    from: 'operations, since, log, first: 0, isLogged: log === null', to: 'operations, since, log: null, first: 0, isLogged: true' },
  { rule: 'R2', what: 'what was unfinished is not read back', file: LOGS, test: R2, quick: true,
    from: '  await readBack(ports, disk, log, unfinished);\n', to: '' },
  { rule: 'R2', what: 'a write after the last heartbeat is not noticed', file: CONTINUITY, test: R2,
    from: 'if (latest > lease.until) {', to: 'if (latest > Infinity) {' },
  { rule: 'R2', what: 'quiet disks are taken for untouched', file: CONTINUITY, test: R2,
    from: '      const lost = compareSeals(name, lease.seals[diskId], now, facts);\n      if (lost !== null) return lost;\n', to: '' },
  { rule: 'R3', what: 'a write that need not wait for the map overtakes one that must', file: DISK, test: R7, only: 'order of the log',
    from: 'for (let [next] = this.#pending; next?.isMarked === true && next.isLogged; [next] = this.#pending) {\n        this.#pending.shift();',
    to: 'const ready = () => this.#pending.find((one) => one.isMarked && one.isLogged);\n      for (let next = ready(); next !== undefined; next = ready()) {\n' +
      '        this.#pending.splice(this.#pending.indexOf(next), 1);' },
  { rule: 'R3', what: 'overlapping writes race', file: DISK, test: R3, quick: true, from: '        operation.blockers++;\n', to: '' },
  { rule: 'R3', what: 'a failed write is not read back', file: DISK, test: R3,
    from: '    await this.#logWhatIsThere(operation);\n', to: '' },
  { rule: 'R3', what: 'what cannot be read back stays unsaid', file: DISK, test: R3,
    from: "      this.#host.loggingFailed(new Error('a disk write failed and could not be read back', { cause }));\n", to: '' },
  { rule: 'R3', what: 'a failed flush leaves the logs believed', file: DISK, test: R3,
    from: "      if (this.#log !== null) this.#host.loggingFailed(new Error('a flush of the disk failed', { cause }));\n", to: '' },
  { rule: 'R3', what: 'a flush that fails at the stop is not on record', file: VM, test: R3,
    from: 'await disk.flush();\n      if (this.#vm.tracking !== null) await this.#sealAndRecord();',
    to: 'await disk.disk.flush();\n      if (this.#vm.tracking !== null) await this.#sealAndRecord();' },
  { rule: 'R4', what: 'a flush does not reach the disk', file: DISK, test: R4, quick: true, from: '      await this.disk.flush();\n', to: '' },
  { rule: 'R4', what: 'a flush waits for the log', file: DISK, test: R4,
    from: '      await this.disk.flush();\n', to: '      await this.#log?.persistFinished();\n      await this.disk.flush();\n' },
  { rule: 'R5', what: 'the disks switch one after another', file: VM, test: R5, quick: true,
    from: 'for (const [diskId, log] of logs) old.set(diskId, this.disk(diskId).setLog(log)!);',
    to: 'for (const [diskId, log] of logs) { await this.clock.sleep(1); old.set(diskId, this.disk(diskId).setLog(log)!); }' },
  { rule: 'R5', what: 'the switch is two records', file: VM, test: R5,
    from: '      this.#record({ epoch: next, chain: chainOf(logs) }, () => {\n        this.#ports.catalog.epochs.put(ended);\n',
    to: '      this.#ports.catalog.transaction(() => this.#ports.catalog.epochs.put(ended));\n      await this.clock.sleep(1);\n' +
      '      this.#record({ epoch: next, chain: chainOf(logs) }, () => {\n' },
  { rule: 'R5', what: 'a log is closed before its writes have finished', file: LOGS, test: R5,
    from: '  await Promise.all([...logs.values()].map((log) => log.allFinished()));\n', to: '' },
  { rule: 'R6', what: 'a discard that promises nothing is logged as zeroes', file: DISK, test: R6, quick: true,
    from: "return this.disk.discardReadsZero ? this.#submit('discard', offset, length, null) : Promise.resolve();",
    to: "return this.#submit('discard', offset, length, null);" },
  { rule: 'R6', what: 'zeroes are logged as data', file: DISK, test: R6,
    from: ": { op: 'zero', offset: operation.offset, length: operation.length };",
    to: ": { op: 'write', offset: operation.offset, data: new Uint8Array(operation.length) };" },
  { rule: 'R6', what: 'zeroes are logged and not written', file: DISK, test: R6,
    from: "kind === 'zero' ? this.disk.zero(offset, length)", to: "kind === 'zero' ? Promise.resolve()" },
];

const CHANGE_MAP: Breakage[] = [
  { rule: 'R7', what: 'a write does not wait for its bit', file: MAP, test: R7, quick: true, from: '      waits = true;\n', to: '' },
  { rule: 'R7', what: 'a bit counts as durable before it is', file: MAP, test: R7, from: '    await this.#file.datasync();\n  }\n', to: '  }\n' },
  { rule: 'R7', what: 'a bit in memory is enough', file: MAP, test: R7,
    from: '      if (this.#durable[region] === 1) continue;\n      waits = true;\n      this.#asked.push(region);\n      if (this.#getBit(region)) continue;\n',
    to: '      if (this.#getBit(region)) continue;\n      waits = true;\n' },
  { rule: 'R7', what: 'a write that is logged does not wait for its bit', file: DISK, test: R7,
    from: 'next?.isMarked === true && next.isLogged;', to: 'next?.isLogged === true;' },
  { rule: 'R7', what: 'a map that takes the place of another does not hear of what is under way', file: DISK, test: R7, only: 'map of before',
    from: 'map === this.#map ? null : this.#mark(admission.operations)', to: 'null as Promise<void> | null' },
  { rule: 'R7', what: 'hot regions lose their bit with every epoch', file: MAP, test: R7,
    from: '    this.#hot.add(region);\n', to: '' },
  { rule: 'R8', what: 'bits drop before the disk is flushed', file: VM, test: R8, quick: true,
    from: '    for (const disk of this.#disks.values()) await disk.flushInPieces();\n    if (!this.logging) return;\n', to: '' },
  { rule: 'R8', what: 'an epoch that was received is taken for applied', file: DELIVERY, test: R8,
    from: "status === 'received' && epoch <= news.appliedEpoch);", to: "status === 'received');" },
  { rule: 'R8', what: 'bits of later writes drop too', file: MAP, test: R8,
    from: 'if (this.#lastEpoch[region]! <= epoch && !this.#hot.has(region)) this.#drop(region);', to: 'if (!this.#hot.has(region)) this.#drop(region);' },
  { rule: 'R9', what: 'a resync does not keep what was suspect', file: VM, test: R9, quick: true,
    from: '      if (options.keepMap) map.pin();\n', to: '' },
  { rule: 'R9', what: 'pinned bits drop', file: MAP, test: R9,
    from: '    if (this.#pinned !== null && (this.#pinned[region >> 3]! & (1 << (region & 7))) !== 0) return;\n', to: '' },
  { rule: 'R9', what: 'the end of a resync drops what was written since', file: MAP, test: R9,
    from: '      if (this.#lastEpoch[region]! <= this.#releasedEpoch) this.#drop(region);\n    }\n  }\n\n  /** Marks',
    to: '      this.#drop(region);\n    }\n  }\n\n  /** Marks' },
  { rule: 'R10', what: 'a map that failed is not on record', file: DISK, test: R10, quick: true,
    from: '    if (failure !== null && map === this.#map) await this.#host.mapFailed(failure);\n', to: '' },
  { rule: 'R10', what: 'a guest waits for the map without bound', file: DISK, test: R10,
    from: 'const timedOut = await Promise.race([mark.then(() => false), late]);', to: 'void late;\n    const timedOut = await mark.then(() => false);' },
  { rule: 'R10', what: 'each admission waits for a map that is given up', file: DISK, test: R10, only: 'side by side',
    from: '    if (timedOut) for (const { marking } of this.#pending) if (marking?.map === map) marking.end();\n', to: '' },
  { rule: 'R10', what: 'a map that failed goes on marking nothing', file: VM, test: R10,
    from: 'options.keepMap && before?.distrusted === null ? before : null', to: 'options.keepMap ? before : null' },
  { rule: 'R10', what: 'the replica is not told', file: 'src/replication/report.ts', test: R10,
    from: 'now.mapTrusted ?? ports.relationships.vm(vmId).tracking?.mapTrusted ?? asked.mapTrusted', to: 'asked.mapTrusted' },
  { rule: 'R11', what: 'open logs are believed after a machine crash', file: CONTINUITY, test: R11, quick: true,
    from: 'if (tracking.bootId !== facts.bootId) return', to: 'if (facts.bootId === null) return' },
  { rule: 'R11', what: 'the logs of the dead boot stay', file: TAKE_UP, test: R11,
    from: '  await dropEpochs(ports, vm);\n  return lost;', to: '  return lost;' },
];

const REPLICATION: Breakage[] = [
  { rule: 'R12', what: 'a set is acknowledged before it is durable', file: INBOX, test: R12, quick: true, from: '        await file.datasync();\n', to: '' },
  { rule: 'R12', what: 'the names of the files are not durable', file: INBOX, test: R12,
    from: '      await this.#ports.files.syncFolder(this.#folder());\n', to: '' },
  { rule: 'R12', what: 'the digest is not compared', file: INBOX, test: R12, from: 'if (found === digest) continue;', to: 'if (found !== null) continue;' },
  { rule: 'R13', what: 'a log that is no link of the chain is applied', file: APPLY, test: R13, quick: true,
    from: 'if (uniqueId !== log.uniqueId || previousUniqueId !== expected) {', to: 'if (reader === null) {' },
  { rule: 'R13', what: 'a log is not verified before its first write', file: APPLY, test: R13, from: '      if (data) await reader.verify();\n', to: '' },
  { rule: 'R13', what: 'a set that is half applied is not on record', file: REPLICA, test: R13,
    from: 'relationships.update(this.vmId, { applying: record.epoch });', to: 'relationships.update(this.vmId, { applying: null });' },
  { rule: 'R13', what: 'a write of which later ones overwrite only the start is left out', file: 'src/replication/apply-stretch.ts',
    test: 'src/replication/apply-stretch.test.ts', from: 'for (let page = first; page < last && covered; page++) covered = later.has(page);',
    to: 'covered = later.has(first);' },
  { rule: 'R13', what: 'a write that covers a page in part counts for the whole of it', file: 'src/replication/apply-stretch.ts',
    test: 'src/replication/apply-stretch.test.ts', from: 'let page = Math.ceil(start / PAGE_BYTES); page < Math.floor(end / PAGE_BYTES)',
    to: 'let page = first; page < last' },
  { rule: 'R14', what: 'a set counts as applied before the base is flushed', file: APPLY, test: R14, quick: true,
    from: '      await disk.flush();\n', to: '' },
  { rule: 'R14', what: 'logs go before "applied" is on record', file: REPLICA, test: R14,
    from: 'const applied = await applySet(this.#ports, record, replicatedDisks(this.vm), signal);',
    to: 'const applied = await applySet(this.#ports, record, replicatedDisks(this.vm), signal);' +
      '\n    for (const { path } of record.disks) await this.#ports.files.remove(path);' },
  { rule: 'R15', what: 'apply goes on under an open overlay', file: REPLICA, test: R15, quick: true,
    from: ' || this.#pins.size > 0) return undefined;', to: ') return undefined;' },
  { rule: 'R15', what: 'a pin does not wait for the log that is being applied', file: REPLICA, test: R15,
    from: '    this.#pins.add(who);\n    await this.#applying;\n', to: '    this.#pins.add(who);\n' },
  { rule: 'R15', what: 'the inbox has no bound', file: INBOX, test: R15, from: '      await this.#checkSpace(disks);\n', to: '' },
  { rule: 'R15', what: 'the growth of the inbox does not show', file: INBOX, test: R15,
    from: 'return this.waiting().reduce((sum, { disks }) => sum + disks.reduce((bytes, { size }) => bytes + size, 0), 0);', to: 'return 0;' },
];

const IDENTITY: Breakage[] = [
  { rule: 'R24', what: 'a disk that was modified meanwhile is not noticed', file: CONTINUITY, test: R24, quick: true,
    from: 'if (changed.length === 0) return null;', to: 'if (changed.length >= 0) return null;' },
  { rule: 'R24', what: 'the seals are not on record', file: VM, test: R24, from: 'this.#record({ running: false, seals });',
    to: 'this.#record({ running: false, seals: {} });' },
  { rule: 'R25', what: 'two servers hold one folder', file: LEASE, test: R25, quick: true,
    from: "if (libc().lockByte(lock.fd, LOCK_BYTE, 'write') === 'conflict') {", to: 'if (lock.fd < 0) {' },
  { rule: 'R25', what: 'a folder is never taken over', file: LEASE, test: R25, from: ' && clock.now() - before.renewedAt < LEASE_MS', to: '' },
  { rule: 'R25', what: 'a folder that was let go is not taken', file: LEASE, test: R25, from: ' && !before.released', to: '' },
  { rule: 'R25', what: 'logs of another host are believed', file: CONTINUITY, test: R25,
    from: 'if (tracking.hostId !== facts.hostId) return', to: 'if (facts.hostId === null) return' },
  { rule: 'R26', what: 'the disk grows before its map', file: RESIZE, test: R26, quick: true, only: 'map, then disk, then the size',
    from: '    await map?.resize(ports.files, mapPath(ports, vm.vmId, diskId), size);\n    await host.changing(() => disk.grow!(size));\n',
    to: '    await host.changing(() => disk.grow!(size));\n    await map?.resize(ports.files, mapPath(ports, vm.vmId, diskId), size);\n' },
  { rule: 'R26', what: 'the intention is not on record', file: RESIZE, test: R26, from: '  recordSize(ports, vm, diskId, { growTo: size });\n', to: '' },
  { rule: 'R26', what: 'the size changes in the middle of an epoch', file: RESIZE, test: R26,
    from: 'virtualSize === before || map === null ? []', to: 'virtualSize >= before || map === null ? []' },
  { rule: 'R26', what: 'a map that has grown alone stays', file: RESIZE, test: R26,
    from: '    await map?.resize(ports.files, mapPath(ports, vm.vmId, diskId), virtualSize);\n', to: '' },
  { rule: 'R26', what: 'growing looks like the work of somebody else', file: VM, test: R26,
    from: '          await this.#lease?.cover();\n          await work();\n', to: '          await work();\n' },
  { rule: 'R26', what: 'a map of the size that was intended is taken for damaged', file: MAP, test: R26,
    from: 'if (options.orSize !== undefined && hasHeader && sizeIn(header) === options.orSize) full.diskSize = options.orSize;', to: '' },
  { rule: 'R26', what: 'a set of a smaller disk is applied', file: APPLY, test: R26,
    from: "  if (shrunk !== null) return { reason: shrunk, again: false, code: 'DISK_SIZE_MISMATCH' };\n", to: '' },
  { rule: 'R26', what: 'the replica grows before that is on record', file: REPLICA, test: R26, only: 'the replica grows',
    from: '    relationships.update(this.vmId, { applying: record.epoch });\n',
    to: '    await growForSet(this.#ports, this, record);\n    relationships.update(this.vmId, { applying: record.epoch });\n' },
];

const EXTENDED: Breakage[] = [
  { rule: 'R27', what: 'a merge tells the extended replica nothing', file: 'src/resync/replica-resync.ts', test: R27, quick: true, only: 'merge of a resync',
    from: "      vm.watch?.changed('the replica was resynchronized with its primary', { known: resync.rung !== 'full-copy' });\n", to: '' },
  { rule: 'R27', what: 'what a merge will write is not in the map of the leg', file: 'src/resync/replica-resync.ts', test: R27, only: 'merge of a resync',
    from: '    await vm.watch?.beforeChange((disk) => heldRanges(this.#ports, disk, token));\n', to: '' },
  { rule: 'R27', what: 'a set writes before its regions are in the map of the leg', file: REPLICA, test: R27, only: 'next link',
    from: '    await this.watch?.beforeSet(record);\n', to: '' },
  { rule: 'R27', what: 'a set that was applied is not queued', file: LEGS, test: R27, only: 'next link',
    from: 'const move = source()?.applied(set) ?? null;', to: 'const move = null as ((() => Promise<void>) | null);' },
  { rule: 'R27', what: 'moves that a crash has interrupted are not ended', file: SETS, test: R27, only: 'the server dies',
    from: '      await this.#move({ ...set,', to: '      if (set.epoch < 0) await this.#move({ ...set,' },
  { rule: 'R27', what: 'bits of sets that were sent stay out of the map when the logs go', file: SETS, test: R27, only: 'has lost its logs of',
    from: '    for (const map of this.#maps.values()) map.pin();\n    void', to: '    for (const map of this.#maps.values()) map.release(Infinity);\n    void' },
  { rule: 'R27', what: 'a copy without writes ends without an epoch of its own', file: SETS, test: R27, only: 'a copy ends',
    from: '    if (this.#copying) return true;\n', to: '' },
  { rule: 'R27', what: 'a set that is applied while the queue is closed is passed over', file: LEGS, test: R27, only: 'a copy ends',
    from: '        if (source() === null) this.#mustRemember(vmId);\n', to: '' },
  { rule: 'R27', what: 'the leg is compared while the replica is no instant', file: 'src/replication/extended/rest.ts', test: R27, only: 'somebody else',
    from: "if (lost !== null || resync !== null || RESYNC_STATES.includes(state))", to: 'if (lost !== null && resync !== null)' },
  { rule: 'R27', what: 'a completed failover tells the extended replica nothing', file: 'src/failover/replica-failover.ts', test: R27, only: 'completed failover',
    from: "        vm.watch?.changed('the VM has failed over to the replica, and its guest writes to the replica disks', { known: false });\n", to: '' },
];

const PROMISE_1: Breakage[] = [
  { rule: 'P1', what: 'nobody watches how long a log takes', file: DISK, test: P1, quick: true,
    from: '      if (!this.#watching && this.#pending.length > 0) void this.#watch();\n', to: '' },
  { rule: 'P1', what: 'others wait behind a job that hangs', file: 'src/disk/write-thread.ts', test: WRITE_THREAD, only: 'not begun in time',
    from: 'if (this.#jobs.length > 0 && this.#clock.monotonic() - this.#jobs[0]!.since > SLOW_MS) this.#takeBack();', to: '' },
  { rule: 'P1', what: 'a log that fails holds the guest', file: DISK, test: P1,
    from: 'if (!admission.isLogged) this.#host.loggingFailed(reason instanceof Error ? reason : new Error(String(reason)));', to: '' },
  { rule: 'P1', what: 'what waited for the log goes on waiting', file: DISK, test: P1,
    from: '      if (!admission.isLogged) Object.assign(admission, { log: null, isLogged: true });\n', to: '      void admission;\n' },
  { rule: 'P1', what: 'guests go on unlogged before that is on record', file: VM, test: P1,
    from: "    const marked = this.#recordOrOwe({ mode: 'map-only' }, loss);\n",
    to: "    this.#vm.tracking = { ...this.#vm.tracking!, mode: 'map-only' };\n    this.#hooks.trackingLost(loss);\n" +
      '    const marked = null as Promise<void> | null;\n' },
  { rule: 'P1', what: 'a loss that the catalog cannot be told ends the server', file: VM, test: P1_CATALOG,
    from: '    } catch (failure) {\n      this.#vm.tracking =',
    to: '    } catch (failure) {\n      if (failure !== null) throw failure;\n      this.#vm.tracking =' },
  { rule: 'P1', what: 'guests go on before a restart would find the loss', file: VM, test: P1_CATALOG,
    from: 'else this.#leaving = marked.then(() => this.#leaveLogs(loss.reason));', to: 'else this.#leaveLogs(loss.reason);' },
  { rule: 'P1', what: 'a lease goes on covering writes that nothing tells of', file: 'src/tracking/write-lease.ts', test: P1_CATALOG,
    from: 'left <= LEASE_MS) || this.#broken || this.#isLost) return null;', to: 'left <= LEASE_MS)) return null;' },
  { rule: 'P1', what: 'what is owed is never put on record', file: 'src/tracking/unrecorded-loss.ts', test: P1_CATALOG,
    from: '        this.#parts.record();\n', to: '' },
  { rule: 'P1', what: 'memory is ahead of a catalog that failed at its commit', file: VM, test: P1_CATALOG,
    from: '    catalog.transaction(() => {\n      catalog.vms.put',
    to: '    this.#vm.tracking = tracking;\n    catalog.transaction(() => {\n      catalog.vms.put' },
  { rule: 'R10', what: 'a map that failed is forgotten with the machine, where the catalog could not be told', file: CONTINUITY, test: P1_CATALOG,
    from: "if (facts.lease?.kind === 'lost' && !facts.lease.mapHolds) return", to: 'if (facts.bootId === null) return' },
  { rule: 'P1', what: 'a guest waits for the lease without bound', file: 'src/tracking/write-lease.ts', test: P1,
    from: "const outcome = await Promise.race([written.then(() => 'written', () => 'failed'), late]);",
    to: "void late;\n    const outcome = await written.then(() => 'written', () => 'failed');" },
];

export const BREAKAGES: readonly Breakage[] = [...TRACKING, ...CHANGE_MAP, ...REPLICATION, ...IDENTITY, ...EXTENDED, ...PROMISE_1, ...FAILOVER_BREAKAGES];
