/** Let a worker join: make a token, show what to paste, and wait until it is there. */

import { Box, Button, Code, HStack, Tabs, Text, VStack } from "@chakra-ui/react";
import { useState } from "react";
import { act, asProblem, read, type Problem } from "../api";
import { Line, Sheet } from "../components/Ask";
import { Trouble } from "../components/Facts";
import { labelsIn, namesIn } from "../format";
import { address } from "../host";
import type { Listed, MadeToken, Worker } from "../types";
import { useLive } from "../useLive";
import { words } from "../words";

type System = "shell" | "ansible";

/** Return what to paste on a machine of this kind. The token is no argument of a command: process lists would show it. */
export function command(system: System, url: string, token: string): string {
  const join = `airflow-remote-worker join ${url} --token -`;
  switch (system) {
    case "shell":
      return `${join} <<'EOF'\n${token}\nEOF`;
    case "ansible":
      return `- ansible.builtin.command:\n    cmd: ${join}\n    stdin: "${token}"\n  no_log: true`;
  }
}

export function Join({ onClose }: { onClose: () => void }) {
  const [queues, setQueues] = useState("default");
  const [pattern, setPattern] = useState("*");
  const [labels, setLabels] = useState("");
  const [uses, setUses] = useState("1");
  const [minutes, setMinutes] = useState("60");
  const [made, setMade] = useState<MadeToken>();
  const [problem, setProblem] = useState<Problem>();
  const { ask, actions } = words();

  async function make(): Promise<void> {
    setProblem(undefined);
    try {
      const wish = {
        queues: namesIn(queues),
        name_pattern: pattern,
        labels: labelsIn(labels) ?? { "": labels },
        uses: Number(uses),
        expires_s: Number(minutes) * 60,
      };
      setMade(await act<MadeToken>("POST", "enrolment-tokens", wish));
    } catch (error) {
      setProblem(asProblem(error));
    }
  }

  if (made) {
    return (
      <Sheet onClose={onClose} title={actions.join}>
        <Paste made={made} />
      </Sheet>
    );
  }
  return (
    <Sheet
      footer={
        <Button colorPalette="brand" onClick={() => void make()} size="sm">
          {actions.make}
        </Button>
      }
      onClose={onClose}
      title={actions.join}
    >
      <VStack align="stretch" gap="3">
        <Line label={ask.queues} onChange={setQueues} value={queues} />
        <Line label={ask.pattern} onChange={setPattern} value={pattern} />
        <Line label={ask.labels} onChange={setLabels} value={labels} />
        <Line label={ask.uses} onChange={setUses} value={uses} />
        <Line label={ask.minutes} onChange={setMinutes} value={minutes} />
        <Trouble problem={problem} />
      </VStack>
    </Sheet>
  );
}

function Paste({ made }: { made: MadeToken }) {
  const { join, actions } = words();
  const [since] = useState(() => Date.parse(made.about.created_at));
  const newest = useLive(`joined ${made.about.id}`, (signal) => read<Listed<Worker>>("workers", { order: "-created_at", limit: 20 }, signal), { of: ["workers"], everyMs: 2_000 });
  const joined = (newest.value?.items ?? []).filter((worker) => Date.parse(worker.created_at) >= since);
  return (
    <VStack align="stretch" gap="3">
      <Text>{join.once}</Text>
      <Tabs.Root defaultValue="shell" size="sm">
        <Tabs.List>
          {Object.entries(join.systems).map(([system, name]) => (
            <Tabs.Trigger key={system} value={system}>
              {name}
            </Tabs.Trigger>
          ))}
        </Tabs.List>
        {(Object.keys(join.systems) as System[]).map((system) => {
          const text = command(system, address("").replace(/\/$/, ""), made.token);
          return (
            <Tabs.Content key={system} value={system}>
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
      <Box aria-live="polite" role="status">
        <Text fontWeight={joined.length ? "bold" : "normal"}>
          {joined.length ? words().joined(joined.map((worker) => worker.name).join(", ")) : join.waiting}
        </Text>
      </Box>
    </VStack>
  );
}
