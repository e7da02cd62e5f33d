import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { UnderstudyError } from '../../model/errors.ts';
import { DOMAIN, UUID } from './domain-xml.suite.ts';
import { DOMAIN_XML_BYTES_MAX, editDomain, parseDomain, testMac, type DomainEdit } from './domain-xml.ts';

const TEST_UUID = '11111111-2222-4333-8444-555555555555';

const disksOf = (socket: string): DomainEdit['disks'] => [
  { uri: `nbd+unix:///web1%2F0?socket=${socket}`, logicalSectorSize: 512, exportedAs: 'web1/0' },
  { uri: `nbd+unix:///web1%2F1?socket=${socket}`, logicalSectorSize: 4096, exportedAs: 'web1/2' },
];
const edit = (more: Partial<DomainEdit> = {}): DomainEdit => ({ name: 'web1', test: null, disks: disksOf('/munich/nbd.sock'), networks: {}, ...more });

/** By libvirt's own schema. */
function assertValid(xml: string): void {
  const folder = mkdtempSync(join(tmpdir(), 'understudy-domain-'));
  try {
    // Of NBD's reconnect delay only newer schemas know; older parsers pass over it.
    writeFileSync(join(folder, 'domain.xml'), xml.replaceAll(/<reconnect delay="\d+"\/>/g, ''));
    const done = spawnSync('virt-xml-validate', [join(folder, 'domain.xml'), 'domain'], { encoding: 'utf8' });
    // Without libvirt's tools the other checks of these tests still hold.
    if (done.error === undefined) assert.equal(done.status, 0, `${done.stdout}${done.stderr}\n${xml}`);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test('the guest keeps who it is, and gets the disks that are served here, each in its place', () => {
  const { xml } = editDomain(DOMAIN, edit());
  assertValid(xml);
  assert.match(xml, /<name>web1<\/name>/);
  assert.equal(xml.split(UUID).length, 3);
  const first = '<disk type="network" device="disk">\\s*<target dev="vda" bus="virtio"/><serial>ABC</serial>'
    + '\\s*<driver[^>]*/><source protocol="nbd" name="web1/0"><host transport="unix" socket="/munich/nbd.sock"/>';
  assert.match(xml, new RegExp(first));
  assert.match(xml, /<target dev="vdc" bus="virtio"\/>\s*<driver[^>]*\/><source protocol="nbd" name="web1\/1">[^]*?<blockio logical_block_size="4096"/);
  assert.doesNotMatch(xml, /scratch|berlin|<domain[^>]* id=/);
  assert.match(xml, /<mac address="52:54:00:AA:bb:cc"\/>/);
});

test('nothing of this host is named that the definition could choose', () => {
  const { xml, dropped } = editDomain(DOMAIN, edit());
  assert.doesNotMatch(xml, /shadow|evil|cron|0\.0\.0\.0|filesystem|hostdev|qemu:|cpuset|seclabel|\/etc\/|passwd/);
  for (const what of ['cputune', 'seclabel', 'qemu:commandline', 'filesystem', 'hostdev', 'kernel', 'loader /home/me/evil.fd', 'rng with another source',
    'disk vdb, which is not replicated']) assert.ok(dropped.includes(what), `${what} of ${dropped.join(', ')}`);
  assert.doesNotMatch(xml, /<nvram/, 'without its loader it is refused by libvirt');
  const uefi = editDomain(DOMAIN.replace('/home/me/evil.fd', '/usr/share/OVMF/OVMF_CODE.fd'), edit());
  assertValid(uefi.xml);
  assert.match(uefi.xml, /<loader[^>]*>\/usr\/share\/OVMF\/OVMF_CODE.fd<\/loader>\s*<nvram template="\/usr\/share\/OVMF\/OVMF_VARS.fd"\/>/);
  assert.match(xml, /<disk type="file" device="cdrom">\s*<target dev="hda" bus="ide"\/><readonly\/>\s*<\/disk>/);
});

test('cards are unplugged unless a setting plugs them in', () => {
  const cards = (more: Partial<DomainEdit>) => {
    const { xml } = editDomain(DOMAIN, edit(more));
    assertValid(xml);
    return [...xml.matchAll(/<interface type="(\w+)">.*?<\/interface>/gs)].map(([text, type]) =>
      [type, /<source (\w+="[^"]*")/.exec(text!)?.[1] ?? null, text!.includes('<link state="down"/>')]);
  };
  assert.deepEqual(cards({}), [['user', null, true], ['user', null, true]]);
  assert.deepEqual(cards({ networks: { default: 'bridge:br7' } }), [['bridge', 'bridge="br7"', false], ['user', null, true]]);
  assert.deepEqual(cards({ networks: { 'br0': 'lan', '*': 'other' } }), [['network', 'network="other"', false], ['network', 'network="lan"', false]]);
});

test('a test guest is somebody else', () => {
  const { xml } = editDomain(DOMAIN, edit({ name: 'web1 - Test', test: { uuid: TEST_UUID, macSeed: 'web1' } }));
  assertValid(xml);
  assert.match(xml, /<name>web1 - Test<\/name>/);
  assert.doesNotMatch(xml, new RegExp(`${UUID}|52:54:00:AA:bb:cc|52:54:00:00:00:02`));
  assert.equal(xml.split(TEST_UUID).length, 3);
  assert.match(xml, new RegExp(`<mac address="${testMac('web1', '52:54:00:aa:BB:cc')}"/>`));
  assert.notEqual(testMac(TEST_UUID, '52:54:00:aa:bb:cc'), testMac(TEST_UUID, '52:54:00:00:00:02'));
});

test('a domain that names none of the disks, and has as many, has them in order; else they are added', () => {
  const inOrder = editDomain(DOMAIN, edit({ disks: [...disksOf('/m'), { uri: 'nbd+unix:///web1%2F2?socket=/m', logicalSectorSize: 512, exportedAs: null }]
    .map((disk) => ({ ...disk, exportedAs: null })) }));
  assert.deepEqual([...inOrder.xml.matchAll(/<target dev="(vd.)"[^]*?name="(web1\/\d)"/g)].map(([, dev, name]) => [dev, name]),
    [['vda', 'web1/0'], ['vdb', 'web1/1'], ['vdc', 'web1/2']]);
  const added = editDomain(DOMAIN, edit({ disks: [disksOf('/m')[0]!, { uri: 'nbd+unix:///x?socket=/m', logicalSectorSize: 512, exportedAs: null }] }));
  assertValid(added.xml);
  assert.deepEqual([...added.xml.matchAll(/<target dev="(vd.)"[^]*?protocol="nbd" name="([^"]*)"/g)].map(([, dev, name]) => [dev, name]),
    [['vda', 'web1/0'], ['vdb', 'x']]);
});

test('what is no domain is refused: another root, a document type, half of one, too much of one', () => {
  for (const xml of ['<network/>', '', 'no xml', DOMAIN.slice(0, 500), 
    `<!DOCTYPE domain [<!ENTITY a "aaaa">]>${DOMAIN}`, `<domain>${' '.repeat(DOMAIN_XML_BYTES_MAX)}</domain>`,
    '<domain><devices><disk></devices></domain>']) {
    assert.throws(() => parseDomain(xml), (error: UnderstudyError) => error.code === 'DOMAIN_XML_INVALID', xml.slice(0, 60));
  }
});
