/** Cmdlets whose arguments become something else on this host: failover addresses of network cards, and "any server". */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { run, startFakeHost } from '../../../test/cli/fake-host.ts';
import type { HostOperations, Vm } from '../../server/api/contract.ts';

const V4 = { card: 'eth0', address: '10.0.0.5', prefix: 24, gateway: '10.0.0.1', dns: ['10.0.0.2', '10.0.0.3', '10.0.0.4'] };
const V6 = { card: 'eth0', address: 'fd00::5', prefix: 64, gateway: null, dns: [] };
const OTHER = { card: '52:54:00:00:00:01', address: '10.9.0.5', prefix: 20, gateway: null, dns: [] };
const SET = 'Set-VMNetworkAdapterFailoverConfiguration web1';

const withAddresses = (addresses: object[]): Partial<HostOperations> => {
  const vm = { vmId: 'v1', name: 'web1', disks: [], attached: true, hypervisor: { adapter: 'none', guest: null, testGuest: null, addresses } } as Vm;
  return { 'vm.list': () => Promise.resolve([vm]), 'vm.show': () => Promise.resolve(vm) };
};

const changes: [what: string, before: object[], line: string, after: object[]][] = [
  ['a first address', [], `${SET} -VMNetworkAdapterName eth0 -IPv4Address 10.0.0.5 -IPv4SubnetMask 255.255.255.0 -IPv4PreferredDNSServer 10.0.0.2`,
    [{ ...V4, gateway: null, dns: ['10.0.0.2'] }]],
  ['what is not named stays, also of other cards and the other family', [V4, V6, OTHER], `${SET} -Card ETH0 -IPv4DefaultG 10.0.0.9 -IPv4Alt 10.0.0.8`,
    [OTHER, { ...V4, card: 'ETH0', gateway: '10.0.0.9', dns: ['10.0.0.2', '10.0.0.8', '10.0.0.4'] }, { ...V6, card: 'ETH0' }]],
  ['the only card need not be named; a mask of odd length', [V4], `${SET} -IPv4SubnetMask 255.255.240.0`, [{ ...V4, prefix: 20 }]],
  ['IPv6 beside IPv4', [V4], `${SET} -IPv6Address fd00::5 -IPv6SubnetPrefixLength 64`, [V4, V6]],
  ['one family cleared', [V4, V6, OTHER], `${SET} -Card eth0 –ClearFailoverIPv4Settings`, [OTHER, V6]],
];
for (const [what, before, line, after] of changes) {
  test(`Set-VMNetworkAdapterFailoverConfiguration: ${what}`, async () => {
    await using host = await startFakeHost(withAddresses(before));
    const { code, stderr } = await run([line], { dataFolder: host.dataFolder });
    assert.equal(code, 0, stderr);
    assert.deepEqual(host.asked.at(-1), { name: 'set', params: { name: 'web1', hypervisor: { addresses: after } } });
  });
}

test('Get-VMNetworkAdapterFailoverConfiguration shows both families of each card', async () => {
  await using host = await startFakeHost(withAddresses([V4, V6, OTHER]));
  const all = await run(['Get-VMNetworkAdapterFailoverConfiguration W* | ft VMNetworkAdapterName,IPv4Address,IPv4SubnetMask,IPv6Address'],
    { dataFolder: host.dataFolder });
  assert.match(all.stdout, /^eth0 +10\.0\.0\.5 +255\.255\.255\.0 +fd00::5\n52:54:00:00:00:01 +10\.9\.0\.5 +255\.255\.240\.0 *$/m);
  const one = await run(['Get-VMNetworkAdapterFailoverConfiguration web1 -Card eth* | fl *'], { dataFolder: host.dataFolder });
  assert.match(one.stdout, /IPv4AlternateDNSServer +: 10\.0\.0\.3\n/);
  assert.match(one.stdout, /IPv6SubnetPrefixLength +: 64\n/);
});

const refused: [line: string, before: object[], code: string, words: RegExp][] = [
  [`${SET}`, [V4], 'ARGUMENT_MISSING', /nothing to change/],
  [`${SET} -IPv4Address 10.0.0.6`, [V4, OTHER], 'ARGUMENT_MISSING', /needs -VMNetworkAdapterName: eth0, 52:54:00:00:00:01 have addresses/],
  [`${SET} -Card eth0 -IPv4Address 10.0.0.6`, [], 'ARGUMENT_MISSING', /needs -IPv4SubnetMask/],
  [`${SET} -Card eth0 -IPv4DefaultGateway 10.0.0.1`, [], 'ARGUMENT_MISSING', /needs -IPv4Address/],
  [`${SET} -IPv4SubnetMask 255.0.255.0`, [V4], 'ARGUMENT_INVALID', /'255\.0\.255\.0' is not a mask/],
  [`${SET} -IPv4 10.0.0.6`, [V4], 'PARAMETER_AMBIGUOUS', /-IPv4Address, -IPv4SubnetMask, -IPv4DefaultGateway/],
  ['Set-VMReplicationServer', [], 'ARGUMENT_MISSING', /nothing to change/],
  ['Set-VMReplicationServer 0', [], 'PARAMETER_UNSUPPORTED', /-ReplicationEnabled .* can only be true/],
  ['Set-VMReplicationServer 1 Kerberos', [], 'PARAMETER_UNSUPPORTED', /fingerprints/],
  ['Set-VMReplicationServer -StorageLoc /srv', [], 'ARGUMENT_INVALID', /none but those that are named is allowed/],
  ['Set-VMReplicationServer -MonitoringInterval 12:00:00', [], 'PARAMETER_UNSUPPORTED', /Get-VMReplicationServer shows it/],
  ['Test-VMReplicationConnection munich 7743', [], 'ARGUMENT_MISSING', /-ReplicaFingerprint/],
];
for (const [line, before, code, words] of refused) {
  test(`${line} is refused: ${code}`, async () => {
    await using host = await startFakeHost({ ...withAddresses(before), authorizations: () => Promise.resolve([]) });
    const done = await run([line], { dataFolder: host.dataFolder });
    assert.equal(done.code, 2, done.stdout);
    assert.ok(done.stderr.includes(code), done.stderr);
    assert.match(done.stderr, words);
    assert.deepEqual(host.asked.filter(({ name }) => name === 'set' || name === 'authorize'), []);
  });
}

test('Set-VMReplicationServer lets any server in with its storage, and no longer', async () => {
  const any = { fingerprint: 'any', name: null, storage: '/old', trustGroup: 'g' };
  await using host = await startFakeHost({ authorizations: () => Promise.resolve([any]) });
  for (const [line, asked] of [
    ['Set-VMReplicationServer $true Certificate $true -DefaultStorageLocation /srv/replicas',
      ['authorize', { fingerprint: 'any', storage: '/srv/replicas', trustGroup: 'g' }]],
    ['Set-VMReplicationServer -StorageLoc replicas', ['authorize', { fingerprint: 'any', storage: '/work-folder/replicas', trustGroup: 'g' }]],
    ['Set-VMReplicationServer -AllowAnyServer 1', ['authorize', { fingerprint: 'any', storage: '/old', trustGroup: 'g' }]],
    ['Set-VMReplicationServer -AllowAnyServer 0', ['unauthorize', { fingerprint: 'any' }]],
  ] as const) {
    const { code, stderr } = await run([line], { dataFolder: host.dataFolder });
    assert.equal(code, 0, stderr);
    assert.deepEqual([host.asked.at(-1)!.name, host.asked.at(-1)!.params], asked);
  }
});

test('Test-VMReplicationConnection names the server that answered', async () => {
  await using host = await startFakeHost();
  const { code, stdout } = await run(['Test-VMReplicationConnection', 'munich', '7743', 'Certificate', 'ab'.repeat(32)], { dataFolder: host.dataFolder });
  assert.equal(code, 0);
  assert.equal(stdout, "The connection to the replica server 'munich' (munich:7743) was established.\n");
});
