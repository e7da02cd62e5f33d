import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decide, decideNewVm, entryFor, vmUnknownToPeer } from './authorisation.ts';
import type { PeerEntry } from './authorisation.ts';
import type { PeerCaller } from './message.ts';

const entry = (fingerprint: string, trustGroup: string): PeerEntry =>
  ({ fingerprint, name: fingerprint, storageLocation: `/replicas/${fingerprint}`, trustGroup });
const caller = (fingerprint: string, verifiedByCa?: boolean): PeerCaller =>
  ({ fingerprint, address: '192.0.2.1:5000', ...(verifiedByCa === undefined ? {} : { verifiedByCa }) });

const ENTRIES = [entry('any', 'EVERYBODY'), entry('A', 'SALES'), entry('B', 'SALES'), entry('C', 'ENGINEERING')];

test('a host with an entry of its own never gets the one for everybody', () => {
  assert.equal(entryFor(ENTRIES, caller('A', true)), ENTRIES[1]);
});

test('the entry for everybody covers only hosts the authority vouches for', () => {
  assert.equal(entryFor(ENTRIES, caller('D', true)), ENTRIES[0]);
  assert.equal(entryFor(ENTRIES, caller('D', false)), null);
  assert.equal(entryFor(ENTRIES, caller('D')), null);
});

test('a new replica VM goes where its creator\'s entry says and belongs to its trust group', () => {
  const decision = decideNewVm(ENTRIES, caller('A'), 'web');
  assert.deepEqual(decision, { allowed: true, entry: ENTRIES[1], storageLocation: '/replicas/A', trustGroup: 'SALES' });
});

test('another host of the same trust group may go on with a VM, which stays where it is', () => {
  const owner = { storageLocation: '/old/place', trustGroup: 'SALES' };
  const decision = decide(ENTRIES, caller('B'), 'web', owner);
  assert.deepEqual(decision, { allowed: true, entry: ENTRIES[2], storageLocation: '/old/place', trustGroup: 'SALES' });
});

test('a host of another trust group cannot tell a VM that is there from one that is not', () => {
  const there = decide(ENTRIES, caller('C'), 'web', { storageLocation: '/x', trustGroup: 'SALES' });
  const notThere = decide(ENTRIES, caller('C'), 'web', null);
  const withoutEntry = decide(ENTRIES, caller('D'), 'web', { storageLocation: '/x', trustGroup: 'SALES' });
  const newVm = decideNewVm(ENTRIES, caller('D'), 'web');
  for (const decision of [there, notThere, withoutEntry, newVm]) {
    assert.equal(decision.allowed, false);
    assert.deepEqual(decision.allowed ? null : decision.refusal.toJSON(), vmUnknownToPeer('web').toJSON());
  }
});

test('this host\'s log says why a VM was refused', () => {
  const decision = decide(ENTRIES, caller('C'), 'web', { storageLocation: '/x', trustGroup: 'SALES' });
  assert.match(decision.allowed ? '' : decision.reason, /C is of trust group "ENGINEERING", the VM of "SALES"/);
});
