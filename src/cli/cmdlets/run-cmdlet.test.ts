import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EXIT_CODE, UnderstudyError } from '../../model/errors.ts';
import { OPERATIONS } from '../../server/api/contract.ts';
import type { OperationName, Status } from '../../server/api/contract.ts';
import { CMDLETS, isCmdlet, runCmdlet } from './run-cmdlet.ts';
import type { CmdletContext } from './run-cmdlet.ts';

const NOW = Date.parse('2026-07-01T10:00:00Z');

function status(vmName: string, more: Partial<Status> = {}): Status {
  return {
    vmId: `id-${vmName}`,
    vmName,
    state: 'Replicating',
    stateNumber: 4,
    wmiState: 3,
    health: 'Normal',
    mode: 'Primary',
    relationship: 'Simple',
    frequencySec: 300,
    primaryServer: 'a.example',
    replicaServer: 'b.example',
    replicaPort: 7443,
    lastReplicationTime: '2026-07-01T09:58:30.000Z',
    lastAppliedLogTime: null,
    pendingBytes: 3_145_728,
    autoResynchronizeEnabled: true,
    autoResynchronizeIntervalStart: '18:30:00',
    autoResynchronizeIntervalEnd: '06:00:00',
    resynchronizeStartTime: null,
    healthDetails: [],
    recoveryHistory: 4,
    ...more,
  };
}
const FINGERPRINT = 'ab'.repeat(32);
const statistics = {
  monitoringStartTime: '2026-07-01T07:00:00.000Z',
  monitoringEndTime: null,
  averageReplicationBytes: 1_572_864,
  maximumReplicationBytes: 9,
  averageLatencySeconds: 2.5,
  maximumLatencySeconds: 90_061,
  replicationErrors: 1,
  successfulReplications: 34,
  missedReplications: 2,
  pendingBytes: 3_145_728,
};

type Call = { name: string; params: object };
type Host = { calls: Call[]; text(): string; run(...words: string[]): Promise<number> };

/** A host with four VMs, one of them not replicated. Its operations take only what the contract allows. */
function host(
  vms: readonly Status[] = [
    status('RESYNC VM', { state: 'Suspended', health: 'Warning', healthDetails: ['Replication is paused.'] }),
    status('web'),
    status('Web-2', { health: 'Critical' }),
    status('plain', { state: 'Disabled', health: 'NotApplicable' }),
  ],
): Host {
  const calls: Call[] = [];
  let text = '';
  const entry = { fingerprint: FINGERPRINT, name: 'c.example', storage: '/replicas', trustGroup: 'DEFAULT' };
  const answers: Record<string, (name: string | undefined) => unknown> = {
    'status': (name) => (name === undefined ? vms : (vms.find(({ vmName }) => vmName === name) ?? unknown(name))),
    'health': (name) => ({ vmName: name, health: 'Normal', state: 'Replicating', healthDetails: [], statistics }),
    'points': (name) => [
      { id: `${name}-1`, time: '2026-07-01T08:00:00.000Z', kind: 'standard', bytes: 4096 },
      { id: `${name}-2`, time: '2026-07-01T09:00:00.000Z', kind: 'application-consistent', bytes: 8192 },
      { id: 'latest', time: '2026-07-01T10:00:00.000Z', kind: 'latest', bytes: 0 },
    ],
    'vm.list': () => vms.map(({ vmName }) => ({ vmId: '', name: vmName, disks: [], attached: false })),
    'authorizations': () => [entry, { ...entry, fingerprint: 'any', name: null, trustGroup: 'other' }],
    'authorize': () => entry,
    'fingerprint': () => ({ fingerprint: FINGERPRINT, name: 'b.example' }),
  };
  const context = {
    call(name: OperationName, params: object): Promise<unknown> {
      OPERATIONS[name].params.parse(params);
      const vm = (params as { name?: string }).name;
      if (!['status', 'health', 'vm.list', 'authorizations', 'fingerprint'].includes(name))
        calls.push({ name, params });
      if (name === 'suspend' && vm === 'Web-2') throw new UnderstudyError('state', 'INVALID_STATE', 'not now', 'Wait.');
      return Promise.resolve(answers[name]?.(vm) ?? {});
    },
    stdout: {
      write(piece: string) {
        text += piece;
      },
    },
    now: NOW,
    zone: 'Europe/Berlin',
    path: (given: string) => `/here/${given}`,
  } as unknown as CmdletContext;
  return { calls, text: () => text, run: (...words) => runCmdlet(words, context) };
}
function unknown(name: string): never {
  throw new UnderstudyError('usage', 'VM_UNKNOWN', `there is no VM '${name}'`, 'Look.');
}
const failsWith =
  (code: string, exit: number, words: RegExp) =>
  (error: unknown): boolean => {
    assert.ok(error instanceof UnderstudyError, String(error));
    assert.deepEqual([error.code, EXIT_CODE[error.kind]], [code, exit], error.message);
    assert.match(`${error.message} → ${error.remedy}`, words);
    return true;
  };

/* The brief's own lines, as a person would copy them from a web page into a shell. */
test('a resync in the past is refused with both times, exit 2, and nothing is called', async () => {
  const { run, calls } = host();
  // bash splits “RESYNC VM” and “04/15/2013 12:00:00” at their blanks: their quotes mean nothing to it.
  await assert.rejects(
    run(
      'Resume-VMReplication',
      '–VMName',
      '“RESYNC',
      'VM”',
      '-Resynchronize',
      '–ResynchronizeStartTime',
      '“04/15/2013',
      '12:00:00”',
    ),
    failsWith(
      'START_TIME_IN_PAST',
      2,
      /2013-04-15 12:00:00 \(Europe\/Berlin\) is in the past; it is now 2026-07-01 12:00:00/,
    ),
  );
  assert.deepEqual(calls, []);
});

test('the same line with a time to come schedules the resync', async () => {
  const { run, calls } = host();
  assert.equal(
    await run(
      'Resume-VMReplication',
      '–VMName',
      '“RESYNC',
      'VM”',
      '-Resynchronize',
      '–ResynchronizeStartTime',
      '“07/04/2026',
      '12:00:00”',
    ),
    0,
  );
  assert.deepEqual(calls, [
    { name: 'resume', params: { name: 'RESYNC VM', resynchronize: true, at: '2026-07-04T10:00:00.000Z' } },
  ]);
});

test('suspend, and an off-peak window set with 1 for true', async () => {
  const { run, calls } = host();
  await run('Suspend-VMReplication', '–VMName', '“RESYNC', 'VM”');
  await run(
    'Set-VMReplication',
    '–VMName',
    '“RESYNC',
    'VM”',
    '–AutoResynchronizeEnabled',
    '1',
    '–AutoResynchronizeIntervalStart',
    '00:00:00',
    '–AutoResynchronizeIntervalEnd',
    '06:00:00',
  );
  assert.deepEqual(calls, [
    { name: 'suspend', params: { name: 'RESYNC VM' } },
    {
      name: 'set',
      params: {
        name: 'RESYNC VM',
        settings: { autoResync: { enabled: true, intervalStart: '00:00:00', intervalEnd: '06:00:00' } },
      },
    },
  ]);
});

for (const words of [
  ['Get-VMReplication -VMname "RESYNC VM" | fl *'],
  ['Get-VMReplication', '-VMname', 'RESYNC VM', '|', 'fl', '*'],
  ['Get-VMReplication', '–VMname', '“RESYNC', 'VM”', '| fl *'],
  ['get–vmreplication', '-vmn:RESYNC VM', '| format-list -property *'],
]) {
  test(`${JSON.stringify(words)} lists every documented property`, async () => {
    const { run, text } = host();
    await run(...words);
    for (const line of [
      /^AutoResynchronizeEnabled +: True$/m,
      /^AutoResynchronizeIntervalStart +: 18:30:00$/m,
      /^ResynchronizeStartTime +:$/m,
      /^LastReplicationTime +: 7\/1\/2026 11:58:30 AM$/m,
      /^ReplicationState +: Suspended$/m,
      /^VMName +: RESYNC VM$/m,
      /^RecoveryHistory +: 4$/m,
      /^ReplicationHealthDetails +: \{Replication is paused\.\}$/m,
    ])
      assert.match(text(), line);
  });
}

test('Get-VMReplication shows the default columns of replicated VMs', async () => {
  const { run, text } = host();
  await run('Get-VMReplication');
  assert.equal(
    text(),
    [
      'VMName    State       Health   Mode    FrequencySec PrimaryServer ReplicaServer ReplicaPort AuthType    Relationship',
      '------    -----       ------   ----    ------------ ------------- ------------- ----------- --------    ------------',
      'RESYNC VM Suspended   Warning  Primary 300          a.example     b.example     7443        Certificate Simple',
      'web       Replicating Normal   Primary 300          a.example     b.example     7443        Certificate Simple',
      'Web-2     Replicating Critical Primary 300          a.example     b.example     7443        Certificate Simple',
      '',
    ].join('\n'),
  );
});

test('Measure-VMReplication shows its default columns and lengths of time', async () => {
  const { run, text } = host();
  await run('Measure-VMReplication', 'web');
  assert.equal(
    text(),
    [
      'VMName State       Health LReplTime            PReplSize(M) AvgLatency   AvgReplSize(M) Relationship',
      '------ -----       ------ ---------            ------------ ----------   -------------- ------------',
      'web    Replicating Normal 7/1/2026 11:58:30 AM 3.00         00:00:02.500 1.50           Simple',
      '',
    ].join('\n'),
  );
  const more = host();
  await more.run('Measure-VMReplication web | fl MaximumReplicationLatency, ReplicationErrors');
  assert.equal(more.text(), 'MaximumReplicationLatency : 1.01:01:01\nReplicationErrors         : 1\n');
});

const lists: readonly [line: string, names: string[]][] = [
  ['Get-VMReplication w* | ft VMName', ['web', 'Web-2']],
  ['Get-VMReplication WEB | ft VMName', ['web']],
  ['Get-VMReplication RESYNC*,web | ft VMName', ['RESYNC VM', 'web']],
  ['Get-VMReplication @("web","Web-2") | ft VMName', ['web', 'Web-2']],
  ['Get-VMReplication nothing* | ft VMName', []],
  ['Get-VMReplication -Health critical | ft VMName', ['Web-2']],
  ['Get-VMReplication -ReplicationState suspended | ft VMName', ['RESYNC VM']],
  ['Get-VMReplication -PrimaryS z* | ft VMName', []],
  ['Get-VMReplication | where Health -eq Critical | ft VMName', ['Web-2']],
  [
    "Get-VMReplication | ? { $_.ReplicationHealth –ne ‘Normal’ -and $_.State -eq 'Suspended' } | ft VMName",
    ['RESYNC VM'],
  ],
  ['Get-VMReplication | where {$_.VMName -like "w*"} | ft VMName', ['web', 'Web-2']],
  ['Get-VMReplication | where State -eq Suspended -or Health -eq Critical | ft VMName', ['RESYNC VM', 'Web-2']],
  ['Get-VMReplication | where RecoveryHistory -gt 4 | ft VMName', []],
  ['Get-VMReplication | where AutoResynchronizeEnabled -eq $true | select -First 1 VMName', ['RESYNC VM']],
  ['Get-VMReplication | where LastReplicationTime -lt 2026-07-01T10:00Z | ft VMName', ['RESYNC VM', 'web', 'Web-2']],
];
for (const [line, names] of lists) {
  test(`${line} → ${names.join(', ')}`, async () => {
    const { run, text } = host();
    await run(line);
    assert.deepEqual(
      text()
        .split('\n')
        .slice(2)
        .filter((row) => row !== ''),
      names,
      text(),
    );
  });
}

test('select keeps aliases and wildcards; more than four properties become a list; JSON is one array', async () => {
  const few = host();
  await few.run('Get-VMReplication web | select Name,state,NoSuchThing');
  assert.equal(few.text(), 'Name State       NoSuchThing\n---- -----       -----------\nweb  Replicating\n');
  const many = host();
  await many.run('Get-VMReplication web | select VMName,State,Health,Mode,Auto*');
  assert.match(many.text(), /^AutoResynchronizeIntervalEnd +: 06:00:00$/m);
  const json = host();
  await json.run(
    'Get-VMReplication web | select VMName,LastReplicationTime,AutoResynchronizeIntervalEnd | ConvertTo-Json',
  );
  assert.deepEqual(JSON.parse(json.text()), [
    { VMName: 'web', LastReplicationTime: '2026-07-01T09:58:30.000Z', AutoResynchronizeIntervalEnd: '06:00:00' },
  ]);
});

const called: readonly [line: string, calls: Call[]][] = [
  [
    'Get-VMReplication | where Health -eq Critical | Resume-VMReplication -Resync',
    [{ name: 'resume', params: { name: 'Web-2', resynchronize: true } }],
  ],
  ['Resume-VMReplication web -Cont', [{ name: 'resume', params: { name: 'web', continue: true } }]],
  ['Resume-VMReplication web -Resynchronize:$false', [{ name: 'resume', params: { name: 'web' } }]],
  ['Stop-VMReplication web', [{ name: 'cancel-resync', params: { name: 'web' } }]],
  ['Remove-VMReplication web -Confirm:$false', [{ name: 'remove', params: { name: 'web' } }]],
  ['Reset-VMReplicationStatistics -Name web', [{ name: 'reset-statistics', params: { name: 'web' } }]],
  [
    'Start-VMInitialReplication web -UseBackup -IRTime 07/02/2026',
    [{ name: 'start', params: { name: 'web', at: '2026-07-01T22:00:00.000Z', useExisting: true } }],
  ],
  [
    'Start-VMInitialReplication web -DestinationPath out',
    [{ name: 'start', params: { name: 'web', exportTo: '/here/out' } }],
  ],
  ['Stop-VMInitialReplication web', [{ name: 'stop-initial', params: { name: 'web' } }]],
  ['Import-VMInitialReplication web in', [{ name: 'import', params: { name: 'web', from: '/here/in' } }]],
  [
    'Start-VMFailover web -AsTest -VMRecoverySnapshot p1',
    [{ name: 'failover', params: { name: 'web', kind: 'test', point: 'p1' } }],
  ],
  ['Start-VMFailover web -Prepare', [{ name: 'failover', params: { name: 'web', kind: 'prepare' } }]],
  ['Start-VMFailover web', [{ name: 'failover', params: { name: 'web', kind: 'unplanned' } }]],
  ['Set-VMReplication web -Reverse', [{ name: 'reverse', params: { name: 'web' } }]],
  ['Stop-VMFailover web', [{ name: 'failover.cancel', params: { name: 'web' } }]],
  ['Suspend-VMReplication web -RRT Extended', [{ name: 'suspend', params: { name: 'web', extended: true } }]],
  ['Remove-VMReplication web -ReplicationRelationshipType extended', [{ name: 'remove', params: { name: 'web', extended: true } }]],
  ['Resume-VMReplication web -Relationship Extended', [{ name: 'resume', params: { name: 'web', extended: true } }]],
  ['Set-VMReplication web -RRT Extended -RecHist 2',
    [{ name: 'set', params: { name: 'web', extended: true, settings: { recoveryHistory: 2 } } }]],
  ['Start-VMInitialReplication web -RRT Extended', [{ name: 'start', params: { name: 'web', extended: true } }]],
  ['Suspend-VMReplication web -RRT Simple', [{ name: 'suspend', params: { name: 'web' } }]],
  ['Complete-VMFailover web', [{ name: 'failover.complete', params: { name: 'web' } }]],
  [
    `Enable-VMReplication plain b.example 7443 Certificate -Cert ${FINGERPRINT} -RepFreq 30 -RecHist 4 -AutoResync 0 ` +
      '-ExcludedVhdPath a,b',
    [
      {
        name: 'enable',
        params: {
          name: 'plain',
          replica: 'b.example:7443',
          fingerprint: FINGERPRINT,
          settings: {
            frequencySec: 30,
            recoveryHistory: 4,
            autoResync: { enabled: false },
            excludedDisks: ['/here/a', '/here/b'],
          },
        },
      },
    ],
  ],
  [
    'Set-VMReplication web -DisableVSS -CompressionEnabled $false',
    [{ name: 'set', params: { name: 'web', settings: { applicationConsistentHours: 0, compression: false } } }],
  ],
  ['Set-VMReplication web fe80::1 7443', [{ name: 'set', params: { name: 'web', replica: '[fe80::1]:7443' } }]],
  [
    `New-VMReplicationAuthorizationEntry ${FINGERPRINT} store DEFAULT`,
    [{ name: 'authorize', params: { fingerprint: FINGERPRINT, storage: '/here/store', trustGroup: 'DEFAULT' } }],
  ],
  [
    'New-VMReplicationAuthorizationEntry * store DEFAULT',
    [{ name: 'authorize', params: { fingerprint: 'any', storage: '/here/store', trustGroup: 'DEFAULT' } }],
  ],
  ['Remove-VMReplicationAuthorizationEntry c.example', [{ name: 'unauthorize', params: { fingerprint: FINGERPRINT } }]],
  [
    'Remove-VMReplicationAuthorizationEntry -TrustGroup other',
    [{ name: 'unauthorize', params: { fingerprint: 'any' } }],
  ],
];
for (const [line, calls] of called) {
  test(line.replace(FINGERPRINT, '…'), async () => {
    const found = host();
    await found.run(line);
    assert.deepEqual(found.calls, calls);
  });
}

const refused: readonly [line: string, code: string, exit: number, words: RegExp][] = [
  ['Get-VMReplications', 'CMDLET_UNKNOWN', 2, /Get-Command lists/],
  ['Pause-VMReplication web', 'CMDLET_UNKNOWN', 2, /Suspend-VMReplication/],
  [
    'Set-VMReplication web -AutoResynchronizedDisabled',
    'PARAMETER_UNKNOWN',
    2,
    /It takes: .*-AutoResynchronizeEnabled/,
  ],
  [
    'Set-VMReplication web -AutoResynchronizeI 1',
    'PARAMETER_AMBIGUOUS',
    2,
    /-AutoResynchronizeIntervalStart, -AutoResynchronizeIntervalEnd/,
  ],
  ['Set-VMReplication web -AutoResynchronizeEnabled yes', 'ARGUMENT_INVALID', 2, /'yes' is not \$true or \$false/],
  ['Set-VMReplication web -RecoveryHistory many', 'ARGUMENT_INVALID', 2, /whole number/],
  ['Set-VMReplication web -AutoResynchronizeIntervalStart 1.00:00:00', 'ARGUMENT_INVALID', 2, /time of day/],
  ['Set-VMReplication web -ReplicationFrequencySec 60', 'ARGUMENT_INVALID', 2, /60 is not 30, 300 or 900/],
  ['Set-VMReplication web', 'ARGUMENT_MISSING', 2, /nothing to change/],
  ['Set-VMReplication web -RecoveryHistory', 'ARGUMENT_MISSING', 2, /-RecoveryHistory has no value/],
  ['Set-VMReplication web -RecoveryHistory -RepFreq 30', 'ARGUMENT_MISSING', 2, /-RecoveryHistory has no value/],
  ['Set-VMReplication web -RecHist 1 -RecHist 2', 'PARAMETER_TWICE', 2, /more than once/],
  ['Set-VMReplication web -ComputerName b', 'PARAMETER_UNSUPPORTED', 2, /run it there/],
  ['Enable-VMReplication plain b 7443 Kerberos', 'PARAMETER_UNSUPPORTED', 2, /fingerprints/],
  ['Enable-VMReplication plain b 7443', 'ARGUMENT_MISSING', 2, /-ReplicaFingerprint/],
  ['Suspend-VMReplication', 'ARGUMENT_MISSING', 2, /-VMName/],
  ['Suspend-VMReplication RESYNC VM', 'ARGUMENT_UNEXPECTED', 2, /'VM'.*quote values/],
  ['Suspend-VMReplication nobody', 'VM_UNKNOWN', 2, /nobody/],
  ['Suspend-VMReplication “web', 'QUOTE_OPEN', 2, /'web' is not closed/],
  ['Get-VMReplication plain', 'NOT_APPLICABLE', 3, /'Get-VMReplication' is not applicable on virtual machine 'plain'/],
  ['Get-VMReplication -State Happy', 'ARGUMENT_INVALID', 2, /one of Disabled/],
  ['Get-VMReplication | | fl', 'PIPELINE_EMPTY', 2, /before or after/],
  ['Get-VMReplication | sort VMName', 'CMDLET_UNKNOWN', 2, /where, select, fl and ft/],
  ['Get-VMReplication | constructor', 'CMDLET_UNKNOWN', 2, /constructor/],
  ['Get-VMReplication | where State -is Error', 'PIPELINE_INVALID', 2, /-eq, -ne/],
  ['Resume-VMReplication web -Continue -Resynchronize', 'ARGUMENT_INVALID', 2, /starts over/],
  ['Start-VMFailover web -Prepare -AsTest', 'ARGUMENT_INVALID', 2, /-Prepare alone/],
  ['New-VMReplicationAuthorizationEntry c.example store DEFAULT', 'ARGUMENT_MISSING', 2, /fingerprint of 'c.example'/],
];
for (const [line, code, exit, words] of refused) {
  test(`${line} is refused: ${code}`, async () => {
    const { run, calls } = host();
    await assert.rejects(async () => run(line), failsWith(code, exit, words));
    assert.deepEqual(calls, []);
  });
}

test('Get-VMSnapshot lists the recovery points but for the latest, and one of them goes into Start-VMFailover', async () => {
  const listed = host();
  await listed.run('Get-VMSnapshot', 'web', '|', 'select', 'Name,SnapshotType');
  assert.match(listed.text(), /web-1 +Replica/);
  assert.match(listed.text(), /web-2 +AppConsistentReplica/);
  assert.doesNotMatch(listed.text(), /latest/);
  const piped = host();
  await piped.run('Get-VMSnapshot', 'web', '-SnapshotType', 'AppConsistentReplica', '|', 'Start-VMFailover', '-AsTest');
  const { params } = piped.calls.find(({ name }) => name === 'failover')!;
  assert.deepEqual(params, { name: 'web', kind: 'test', point: 'web-2' });
  const both = host();
  await assert.rejects(both.run('Get-VMSnapshot', 'web', '|', 'Start-VMFailover'), failsWith('ARGUMENT_INVALID', 2, /one recovery point/));
});

test('one VM that fails does not keep the others from their turn', async () => {
  const { run, calls } = host();
  await assert.rejects(
    run('Suspend-VMReplication', '*'),
    failsWith('INVALID_STATE', 3, /failed for 1 of 3 virtual machines: Web-2: not now/),
  );
  assert.deepEqual(
    calls.map(({ params }) => (params as { name: string }).name),
    ['RESYNC VM', 'web', 'Web-2'],
  );
});

test('-WhatIf changes nothing and -Passthru puts out what changed', async () => {
  const dry = host();
  await dry.run('Suspend-VMReplication', 'w*', '-WhatIf');
  assert.deepEqual(dry.calls, []);
  assert.equal(
    dry.text(),
    'What if: Performing the operation "Suspend-VMReplication" on target "web".\n' +
      'What if: Performing the operation "Suspend-VMReplication" on target "Web-2".\n',
  );
  const wet = host();
  await wet.run('Suspend-VMReplication web -Passthru | select VMName');
  assert.match(wet.text(), /^web$/m);
});

test('authorization entries and the server are shown with their columns', async () => {
  const { run, text } = host();
  await run('Get-VMReplicationAuthorizationEntry');
  assert.equal(
    text(),
    'AllowedPS StorageLoc TrustGroup\n--------- ---------- ----------\n' +
      'c.example /replicas  DEFAULT\n*         /replicas  other\n',
  );
  const server = host();
  await server.run('Get-VMReplicationServer | fl ReplicationAllowedFromAnyServer,CertificateThumbprint');
  assert.equal(
    server.text(),
    `ReplicationAllowedFromAnyServer : True\nCertificateThumbprint           : ${FINGERPRINT}\n`,
  );
});

test('Get-Command lists all cmdlets and Get-Help their parameters with aliases', async () => {
  const all = host();
  await all.run('Get-Command');
  assert.equal(all.text().trimEnd().split('\n').length, CMDLETS.length);
  const one = host();
  await one.run('Get-Help', 'Resume-VMReplication');
  assert.match(one.text(), /-ResynchronizeStartTime <start-time> {3}\(also -ResyncStart\)/);
});

test('cmdlets are told from other commands', () => {
  for (const words of [
    ['Get-VMReplication'],
    ['get–vmreplication', 'x'],
    ['Get-VMReplication|fl'],
    [' Get-VMReplication | fl *'],
    ['Get-Command'],
  ]) {
    assert.ok(isCmdlet(words), words.join(' '));
  }
  for (const words of [[], ['status'], ['reset-vm'], ['vm', 'list'], ['--data', 'x']])
    assert.ok(!isCmdlet(words), words.join(' '));
});
