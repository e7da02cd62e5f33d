/** All commands as one commander program. */

import { Command, CommanderError } from 'commander';
import { addCommand } from './command.ts';
import type { CommandDefinition } from './command.ts';
import { commandContext } from './context.ts';
import type { CliSurroundings, CommandContext } from './context.ts';
import { imageCommands } from './commands/disk-images.ts';
import { consoleCommands } from './commands/console.ts';
import { diskCommands } from './commands/disk.ts';
import { doctorCommands } from './commands/doctor.ts';
import { failoverCommands } from './commands/failover.ts';
import { guestCommands } from './commands/guest.ts';
import { logCommands } from './commands/log.ts';
import { monitoringCommands } from './commands/monitoring.ts';
import { pairingCommands } from './commands/pairing.ts';
import { replicationCommands } from './commands/replication.ts';
import { resyncCommands } from './commands/resync.ts';
import { serveCommands } from './commands/serve.ts';
import { shellCommands } from './commands/shell.ts';
import { vmCommands } from './commands/vm.ts';
import { usageError, withPage } from './failure.ts';
import { Output } from './output.ts';

const SECTIONS: readonly (readonly [heading: string, commands: CommandDefinition[]])[] = [
  ['This host and its peers:', [...serveCommands, ...pairingCommands, ...consoleCommands, ...doctorCommands, ...shellCommands]],
  ['Virtual machines:', vmCommands],
  ['Replication:', replicationCommands],
  ['Watching:', monitoringCommands],
  ['Resynchronization:', resyncCommands],
  ['Failover:', [...failoverCommands, ...guestCommands]],
  ['Files, without a server:', [...diskCommands, ...imageCommands, ...logCommands]],
];
export const COMMANDS: readonly CommandDefinition[] = SECTIONS.flatMap(([, commands]) => commands);

const GROUPS: Record<string, string> = {
  vm: 'Virtual machines and their disks.',
  guest: 'Guests, through the adapter that is set.',
  resync: 'Resynchronizations: progress, plan, queue.',
  disk: 'Disk images: make them, look into them, compare and change them.',
  token: 'Tokens with which programs use the API over HTTP.',
  log: 'Tracking logs: look into them.',
};
const HELP_COLUMNS = 110;

export interface Program {
  program: Command;
  /** Of the command that ran. */
  exitCode(): number;
}

/**
 * Parsing errors are thrown as UnderstudyErrors of kind usage; help and version as CommanderErrors with exit code
 * 0.
 */
export function buildProgram(
  surroundings: CliSurroundings,
  json: boolean,
  runWords: CommandContext['runWords'],
): Program {
  let code = 0;
  const program = new Command('understudy')
    .summary('keeps a standby copy of a virtual machine on a second host')
    .description('Keeps a standby copy of a virtual machine on a second host, and proves it equal.')
    .version(surroundings.version, '-V, --version', 'show the version')
    .option(
      '--data <dir>',
      "the host's data folder, and with it its server (default: $UNDERSTUDY_DATA, or /var/lib/understudy)",
    )
    .option('--json', 'print exactly one JSON value, also for an error')
    .configureHelp({ showGlobalOptions: true, helpWidth: HELP_COLUMNS })
    .configureOutput({
      writeOut: (text) => surroundings.stdout.write(text),
      writeErr: (text) => surroundings.stderr.write(text),
      outputError: () => undefined,
    });
  const contextOf = (): CommandContext => {
    const { stdout, stderr, isTTY, env } = surroundings;
    const color = isTTY.stdout && !env['NO_COLOR'] && env['TERM'] !== 'dumb';
    const { data: dataFolder } = program.opts<{ data?: string }>();
    return commandContext(surroundings, new Output({ stdout, stderr, json, color }), { dataFolder, runWords });
  };
  for (const [heading, commands] of SECTIONS) {
    for (const definition of commands) {
      addCommand(program, definition, async ({ run }, args, options) => {
        code = (await run(contextOf(), args, options).catch((error: unknown) => { throw withPage(error, `${definition.path} --help`); })) ?? 0;
      });
    }
    for (const command of program.commands.filter((each) => each.helpGroup() === '')) command.helpGroup(heading);
  }
  program.addHelpText('after', CMDLET_HELP);
  throwUsageErrors(program);
  return { program, exitCode: () => code };
}

const CMDLET_HELP = `
Hyper-V's cmdlets work too, as in \`understudy Get-VMReplication web1\`; \`understudy shell\` takes one after another.
Each command explains itself: understudy COMMAND --help`;

function throwUsageErrors(command: Command): void {
  const about = GROUPS[command.name()];
  if (command.description() === '' && about !== undefined) command.description(about);
  command.exitOverride((error: CommanderError) => {
    if (error.exitCode === 0) throw error;
    throw usageError(error, command);
  });
  for (const each of command.commands) throwUsageErrors(each);
}
