import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.HashMap;
import java.util.Map;

/** Answers GET /WORD with how often PREPARE has seen the word; keeps all of it in memory. */
public class Words {
    public static void main(String[] args) throws IOException {
        Path shared = Path.of(System.getenv("TITAN_SHARED"));
        int port = Integer.parseInt(System.getenv("PORT"));
        Map<String, String> counts = new HashMap<>();
        for (String line : Files.readAllLines(shared.resolve("words.tsv"))) {
            String[] parts = line.split("\t");
            counts.put(parts[0], parts[1]);
        }
        // Before the port is open: once it answers, CLEAN_UP starts and looks for this file.
        Path draft = Files.writeString(shared.resolve("words.port.part"), port + "\n");
        Files.move(draft, shared.resolve("words.port"), StandardCopyOption.ATOMIC_MOVE);
        InetSocketAddress place = new InetSocketAddress(InetAddress.getLoopbackAddress(), port);
        HttpServer server = HttpServer.create(place, 0);
        server.createContext("/", exchange -> {
            String word = exchange.getRequestURI().getPath().substring(1);
            String count = counts.getOrDefault(word, "0");
            byte[] body = (word + " " + count + "\n").getBytes(StandardCharsets.UTF_8);
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        server.start();
        System.out.println("serving " + counts.size() + " words on port " + port);
    }
}
