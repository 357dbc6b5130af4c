// A receiver of webhooks as people write them in Node: it verifies the raw body, before it parses anything.
// Started with the secret in WEBHOOK_SECRET. Prints its port, then one line of JSON per webhook.
import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";

const secret = process.env.WEBHOOK_SECRET;

function same(given, expected) {
  const [a, b] = [Buffer.from(given), Buffer.from(expected)];
  return a.length === b.length && timingSafeEqual(a, b);
}

// The seed's: hex HMAC-SHA256 of the body.
function seedVerified(headers, body) {
  return same(headers["x-webhook-signature"] ?? "", createHmac("sha256", secret).update(body).digest("hex"));
}

// Standard Webhooks: `v1,<base64>`, several of them while a secret is rotated.
function standardVerified(headers, body) {
  const signed = createHmac("sha256", secret).update(`${headers["webhook-id"]}.${headers["webhook-timestamp"]}.`);
  const expected = `v1,${signed.update(body).digest("base64")}`;
  return (headers["webhook-signature"] ?? "").split(" ").some((given) => same(given, expected));
}

const server = createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    const body = Buffer.concat(parts);
    const seed = seedVerified(request.headers, body);
    const standard = standardVerified(request.headers, body);
    response.statusCode = seed && standard ? 204 : 401;
    response.end();
    const { status, recording_id, transcription } = JSON.parse(body);
    const last = transcription?.at(-1)?.text;
    console.log(JSON.stringify({ seed, standard, status, recording_id, bytes: body.length, last }));
  });
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
