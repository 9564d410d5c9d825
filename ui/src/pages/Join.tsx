/** The dialog that lets a worker join: it creates a token, shows what to paste on the machine, and waits for the worker. */

import { Box, Button, Code, HStack, Tabs, Text, VStack } from "@chakra-ui/react";
import { useState } from "react";
import { act, asProblem, read, type Problem } from "../api";
import { DialogFrame, TextField } from "../components/Dialog";
import { ErrorNotice } from "../components/Notices";
import { labelsIn, namesIn } from "../format";
import { address } from "../host";
import type { Listed, MadeToken, Worker } from "../types";
import { useLive } from "../useLive";
import { words } from "../words";

type Way = "pip" | "uv" | "pipx" | "pyz" | "ansible";

const PROGRAM = "~/.local/share/airflow-remote-worker-program";

/** How a machine gets the worker: the command that installs it, and the program that it makes. */
const INSTALLED: Record<Exclude<Way, "ansible">, { install: string | null; program: string }> = {
  pip: { install: `python3 -m venv ${PROGRAM} &&\n${PROGRAM}/bin/pip install airflow-remote-worker`, program: `${PROGRAM}/bin/airflow-remote-worker` },
  uv: { install: "uv tool install airflow-remote-worker", program: '"$(uv tool dir --bin)"/airflow-remote-worker' },
  pipx: { install: "pipx install airflow-remote-worker", program: '"$(pipx environment --value PIPX_BIN_DIR)"/airflow-remote-worker' },
  pyz: { install: null, program: "python3 worker.pyz" },
};

/**
 * Return what to paste on a machine: from nothing to a running service.
 *
 * The token is not an argument of a command: process lists would show it. A pattern that is a name is the worker's name.
 */
export function command(way: Way, url: string, token: string, pattern = "*"): string {
  const name = /^[A-Za-z0-9._-]+$/.test(pattern) ? ` --name ${pattern}` : "";
  const insecure = /^http:\/\/(?!(localhost|127\.0\.0\.1|\[::1\])(:|\/|$))/.test(url) ? " --insecure-http" : "";
  const join = `join ${url}${name}${insecure} --token -`;
  if (way === "ansible") {
    return `- ansible.builtin.command:\n    cmd: airflow-remote-worker ${join}\n    stdin: "${token}"\n  no_log: true`;
  }
  const { install, program } = INSTALLED[way];
  return `${install === null ? "" : `${install} &&\n`}${program} ${join} <<'EOF' &&\n${token}\nEOF\n${program} service install --now`;
}

export function Join({ onClose }: { onClose: () => void }) {
  const [queues, setQueues] = useState("default");
  const [pattern, setPattern] = useState("*");
  const [labels, setLabels] = useState("");
  const [uses, setUses] = useState("1");
  const [minutes, setMinutes] = useState("60");
  const [created, setCreated] = useState<MadeToken>();
  const [problem, setProblem] = useState<Problem>();
  const { prompts, actions } = words();

  async function create(): Promise<void> {
    setProblem(undefined);
    try {
      const request = {
        queues: namesIn(queues),
        name_pattern: pattern,
        labels: labelsIn(labels) ?? { "": labels },
        uses: Number(uses),
        expires_s: Number(minutes) * 60,
      };
      setCreated(await act<MadeToken>("POST", "enrolment-tokens", request));
    } catch (error) {
      setProblem(asProblem(error));
    }
  }

  if (created) {
    return (
      <DialogFrame onClose={onClose} title={actions.join}>
        <PasteCommand created={created} />
      </DialogFrame>
    );
  }
  return (
    <DialogFrame
      footer={
        <Button colorPalette="brand" onClick={() => void create()} size="sm">
          {actions.make}
        </Button>
      }
      onClose={onClose}
      title={actions.join}
    >
      <VStack align="stretch" gap="3">
        <TextField label={prompts.queues} onChange={setQueues} value={queues} />
        <TextField label={prompts.pattern} onChange={setPattern} value={pattern} />
        <TextField label={prompts.labels} onChange={setLabels} value={labels} />
        <TextField label={prompts.uses} onChange={setUses} value={uses} />
        <TextField label={prompts.minutes} onChange={setMinutes} value={minutes} />
        <ErrorNotice problem={problem} />
      </VStack>
    </DialogFrame>
  );
}

function PasteCommand({ created }: { created: MadeToken }) {
  const { join, actions } = words();
  const [since] = useState(() => Date.parse(created.about.created_at));
  const newest = useLive(`joined ${created.about.id}`, (signal) => read<Listed<Worker>>("workers", { order: "-created_at", limit: 20 }, signal), { subjects: ["workers"], everyMs: 2_000 });
  const joined = (newest.value?.items ?? []).filter((worker) => Date.parse(worker.created_at) >= since);
  return (
    <VStack align="stretch" gap="3">
      <Text>{join.once}</Text>
      <Tabs.Root defaultValue="pip" size="sm">
        <Tabs.List>
          {Object.entries(join.ways).map(([way, { name }]) => (
            <Tabs.Trigger key={way} value={way}>
              {name}
            </Tabs.Trigger>
          ))}
        </Tabs.List>
        {(Object.keys(join.ways) as Way[]).map((way) => {
          const text = command(way, (created.central || address("")).replace(/\/$/, ""), created.token, created.about.name_pattern);
          return (
            <Tabs.Content key={way} value={way}>
              <Text fontSize="sm" mb="2">
                {join.ways[way].needs}
              </Text>
              <HStack align="start">
                <Code display="block" flex="1" overflowX="auto" p="2" whiteSpace="pre-wrap" wordBreak="break-all">
                  {text}
                </Code>
                <Button onClick={() => void navigator.clipboard.writeText(text)} size="xs" variant="outline">
                  {actions.copy}
                </Button>
              </HStack>
            </Tabs.Content>
          );
        })}
      </Tabs.Root>
      <Text color="fg.muted" fontSize="sm">
        {join.offline}
      </Text>
      <Box aria-live="polite" role="status">
        <Text fontWeight={joined.length ? "bold" : "normal"}>
          {joined.length ? words().joined(joined.map((worker) => worker.name).join(", ")) : join.waiting}
        </Text>
      </Box>
    </VStack>
  );
}
